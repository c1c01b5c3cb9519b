package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/registries/registrytest"
)

// TestRegistry runs the suite in the three ways in which pods are registered,
// with a configured instance id and with the instance found by the pod's
// address.
func TestRegistry(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	for _, way := range []struct {
		name string
		at   *servers.ConsulAgent
		new  func(*testing.T, *servers.ConsulAgent) *harness
	}{
		{"node agent", agent, onNodeAgent},
		{"agent in the pod", agent, onPodAgent},
		{"agentless", server, agentless},
	} {
		for _, byID := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/by id %v", way.name, byID), func(t *testing.T) {
				registrytest.Run(t, func(t *testing.T) registrytest.Harness {
					h := way.new(t, way.at)
					h.byID = byID
					return h
				})
			})
		}
	}
}

// harness is a pod with an app that is registered in a real Consul.
type harness struct {
	at       *servers.ConsulAgent
	client   *api.Client
	name, id string // of the service and its instance
	pod      drain.Pod
	byID     bool // the plug-in is configured with the id
	config   Config
	// register registers the pod's instance as available.
	register func(*testing.T, *harness)
	// heartbeat is what the app or its platform then does every few seconds.
	heartbeat func(*testing.T, *harness)
	// mesh: the instance has a sidecar proxy.
	mesh       bool
	registered bool
	nextPod    func(*harness)
}

// serial makes the pods of all tests distinct.
var serial atomic.Int64

func newHarness(t *testing.T, at *servers.ConsulAgent) *harness {
	n := int(serial.Add(1))
	return &harness{
		at:      at,
		client:  at.Client(t),
		name:    fmt.Sprintf("web-%d", n),
		id:      fmt.Sprintf("pod-%d-web", n),
		config:  Config{Address: at.Address, CACert: at.CAFile, ClientRefresh: time.Second},
		pod:     drain.Pod{Name: fmt.Sprintf("pod-%d", n), IP: podIP(), AppPort: 8080},
		nextPod: func(h *harness) { h.pod.IP = podIP() }, // as a StatefulSet's next pod
	}
}

var lastIP atomic.Int64

func podIP() string {
	n := lastIP.Add(1)
	return fmt.Sprintf("10.1.%d.%d", n/250, 1+n%250)
}

// onNodeAgent is a pod whose app registers itself at the node's agent.
func onNodeAgent(t *testing.T, at *servers.ConsulAgent) *harness {
	h := newHarness(t, at)
	h.register = func(t *testing.T, h *harness) {
		check(t, h.client.Agent().ServiceRegister(h.registration()))
		h.heartbeat(t, h)
	}
	h.heartbeat = passTTL
	return h
}

// registration returns the app's registration, with a TTL check that the app
// itself updates.
func (h *harness) registration() *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID: h.id, Name: h.name, Address: h.pod.IP, Port: h.pod.AppPort,
		Check: &api.AgentServiceCheck{TTL: "10m"},
	}
}

func passTTL(t *testing.T, h *harness) {
	t.Helper()
	check(t, h.client.Agent().UpdateTTL("service:"+h.id, "", api.HealthPassing))
}

// onPodAgent is a pod with an agent of its own, which has the pod's address:
// the app registers without an address.
func onPodAgent(t *testing.T, at *servers.ConsulAgent) *harness {
	h := onNodeAgent(t, at)
	h.pod.IP = "127.0.0.1"
	h.pod.AppPort = 20000 + int(serial.Load())
	h.nextPod = func(h *harness) { h.pod.Name += "-next" }
	h.register = func(t *testing.T, h *harness) {
		registration := h.registration()
		registration.Address = ""
		check(t, h.client.Agent().ServiceRegister(registration))
		h.heartbeat(t, h)
	}
	return h
}

// agentless is a pod that consul-k8s registers: service and sidecar proxy, on
// the virtual node of the pod's node. Its controller registers them again
// whenever it reconciles.
func agentless(t *testing.T, at *servers.ConsulAgent) *harness {
	h := newHarness(t, at)
	h.mesh = true
	h.register = func(t *testing.T, h *harness) { h.reconcile(t, api.HealthPassing) }
	h.heartbeat = h.register
	return h
}

func (h *harness) proxyID() string { return h.id + "-sidecar-proxy" }

// reconcile registers the pod as the endpoints controller of consul-k8s 1.9
// does.
func (h *harness) reconcile(t *testing.T, health string) {
	t.Helper()
	meta := map[string]string{"pod-name": h.pod.Name, "k8s-service-name": h.name, "k8s-namespace": "default",
		"managed-by": "consul-k8s-endpoints-controller", "synthetic-node": "true"}
	service := &api.AgentService{ID: h.id, Service: h.name, Address: h.pod.IP, Port: h.pod.AppPort, Meta: meta}
	proxy := &api.AgentService{
		Kind: api.ServiceKindConnectProxy, ID: h.proxyID(), Service: h.name + "-sidecar-proxy",
		Address: h.pod.IP, Port: 20000, Meta: meta,
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: h.name, DestinationServiceID: h.id,
			LocalServiceAddress: "127.0.0.1", LocalServicePort: h.pod.AppPort},
	}
	for _, s := range []*api.AgentService{service, proxy} {
		_, err := h.client.Catalog().Register(&api.CatalogRegistration{
			Node: "k8s-node-virtual", Address: "10.0.0.7", NodeMeta: map[string]string{"synthetic-node": "true"},
			Service: s,
			Check: &api.AgentCheck{CheckID: "default/" + s.ID, Name: "Kubernetes Readiness Check", Type: "kubernetes-readiness",
				Status: health, ServiceID: s.ID, Output: "Kubernetes health checks passing"},
			SkipNodeUpdate: true,
		}, nil)
		check(t, err)
	}
}

func (h *harness) Register(t *testing.T) {
	if h.registered {
		h.nextPod(h)
	}
	h.registered = true
	h.register(t, h)
}

func (h *harness) Heartbeat(t *testing.T) { h.heartbeat(t, h) }

// Settle does nothing, because there is only one server.
func (h *harness) Settle(*testing.T) {}

// Listed queries in every way that clients do.
func (h *harness) Listed(t *testing.T) bool {
	t.Helper()
	for _, q := range []*api.QueryOptions{{}, {AllowStale: true}, {RequireConsistent: true}} {
		entries, _, err := h.client.Health().Service(h.name, "", true, q)
		check(t, err)
		proxies, _, err := h.client.Health().Connect(h.name, "", true, q)
		check(t, err)
		if len(entries)+len(proxies) > 0 {
			return true
		}
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, h.at.DNS)
	}}
	_, records, err := resolver.LookupSRV(t.Context(), "", "", h.name+".service.consul.")
	if notFound := (*net.DNSError)(nil); errors.As(err, &notFound) && notFound.IsNotFound {
		return false
	}
	check(t, err)
	return len(records) > 0
}

func (h *harness) Known(t *testing.T) bool {
	t.Helper()
	services, _, err := h.client.Catalog().Service(h.name, "", nil)
	check(t, err)
	proxies, _, err := h.client.Catalog().Connect(h.name, "", nil)
	check(t, err)
	return len(services)+len(proxies) > 0
}

func (h *harness) Registry(t *testing.T) drain.Registry { return h.plugIn(t) }

func (h *harness) plugIn(t *testing.T) *Registry {
	t.Helper()
	config := h.config
	if h.byID {
		config.ServiceID = h.id
	}
	r, err := New(config, h.pod)
	check(t, err)
	return r
}

// maintenanceReasons returns the reasons of the maintenance checks that the
// catalog holds for the pod, sorted.
func (h *harness) maintenanceReasons(t *testing.T) []string {
	t.Helper()
	var reasons []string
	for _, id := range []string{h.id, h.proxyID()} {
		checks, _, err := h.client.Health().State(api.HealthAny, &api.QueryOptions{Filter: is("CheckID", api.ServiceMaintPrefix+id)})
		check(t, err)
		for _, c := range checks {
			reasons = append(reasons, c.Notes)
		}
	}
	slices.Sort(reasons)
	return reasons
}

// must calls a method of the plug-in with the deadline that the drainer sets.
func must(t *testing.T, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	check(t, call(ctx))
}

// withdrawn calls Withdrawn with the deadline that the drainer sets.
func withdrawn(t *testing.T, r *Registry) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	gone, err := r.Withdrawn(ctx)
	check(t, err)
	return gone
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
