package consul

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// isListed calls Listed with the deadline that the drainer sets.
func isListed(t *testing.T, r *Registry) (listed bool, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	listed, why, err := r.Listed(ctx)
	check(t, err)
	if listed != (why == "") {
		t.Fatalf("Listed returns %v because of %q", listed, why)
	}
	return listed, why
}

// unlisted waits until Listed returns a reason that contains what.
func unlisted(t *testing.T, r *Registry, what string) {
	t.Helper()
	wait.For(t, "Listed saying what is missing", func() error {
		if listed, why := isListed(t, r); listed || !strings.Contains(why, what) {
			return &notSo{why}
		}
		return nil
	})
}

type notSo struct{ why string }

func (e *notSo) Error() string { return "it says " + e.why }

// Each check counts, except those that follow the pod's own readiness.
func TestChecksThatKeepAPodFromBeingListed(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})

	t.Run("an app with a check of its own", func(t *testing.T) {
		h := onNodeAgent(t, agent)
		r := h.plugIn(t)
		unlisted(t, r, "no service instance at")
		check(t, h.client.Agent().ServiceRegister(h.registration())) // critical until the app sends a heartbeat
		unlisted(t, r, "is critical")
		check(t, h.client.Agent().UpdateTTL("service:"+h.id, "", api.HealthWarning))
		unlisted(t, r, "is warning")
		passTTL(t, h)
		wait.Until(t, "Listed", func() bool { listed, _ := isListed(t, r); return listed })
		if !h.Listed(t) {
			t.Error("Listed returns true, but a client does not get the instance")
		}
		check(t, h.client.Agent().EnableServiceMaintenance(h.id, "somebody's"))
		unlisted(t, r, "_service_maintenance")
	})

	// consul-k8s registers the pod before it is ready, with a check that is
	// critical until then.
	t.Run("consul-k8s", func(t *testing.T) {
		h := agentless(t, server)
		r := h.plugIn(t)
		h.reconcile(t, api.HealthCritical)
		if listed, why := isListed(t, r); !listed {
			t.Errorf("waits for the pod's own readiness: %s", why)
		}
		if !withdrawn(t, r) || h.Listed(t) {
			t.Error("clients get a pod that is not ready: this test proves nothing")
		}
		// Another check, of the service or of its proxy, still counts.
		for _, id := range []string{h.id, h.proxyID()} {
			set := func(status string) {
				_, err := h.client.Catalog().Register(&api.CatalogRegistration{
					Node: "k8s-node-virtual", Address: "10.0.0.7", SkipNodeUpdate: true,
					Check: &api.AgentCheck{Node: "k8s-node-virtual", CheckID: "own-" + id, Name: "warm", Status: status, ServiceID: id},
				}, nil)
				check(t, err)
			}
			set(api.HealthCritical)
			unlisted(t, r, `its check "own-`+id+`" (warm) is critical`)
			set(api.HealthPassing)
			wait.Until(t, "Listed", func() bool { listed, _ := isListed(t, r); return listed })
		}
	})

	// Before 1.0, consul-k8s' check was on the node's agent, and the proxy had
	// an alias check of its service.
	t.Run("consul-k8s with agents", func(t *testing.T) {
		h := onNodeAgent(t, agent)
		registration := h.registration()
		registration.Check = &api.AgentServiceCheck{Name: "Kubernetes Health Check", CheckID: "default/" + h.id + "/kubernetes-health-check", TTL: "10m"}
		check(t, h.client.Agent().ServiceRegister(registration))
		check(t, h.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Kind: api.ServiceKindConnectProxy, ID: h.proxyID(), Name: h.name + "-sidecar-proxy", Address: h.pod.IP, Port: 20000,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: h.name, DestinationServiceID: h.id,
				LocalServiceAddress: "127.0.0.1", LocalServicePort: h.pod.AppPort},
			Check: &api.AgentServiceCheck{Name: "Destination Alias", AliasService: h.id},
		}))
		r := h.plugIn(t)
		wait.Until(t, "Listed", func() bool { listed, _ := isListed(t, r); return listed })
		if h.Listed(t) {
			t.Error("clients get a pod that is not ready: this test proves nothing")
		}
	})
}

// A whole pod: consul-k8s sets its check to passing once the pod is ready.
func TestReadyWithAControllerThatMirrorsReadiness(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	h := agentless(t, server)
	d := drain.New(drain.Config{
		GracePeriod: 5 * time.Second, Registries: []drain.NamedRegistry{{Name: "consul", Registry: h.plugIn(t)}},
		ReadyWhenListed: true, ListedWithin: time.Hour,
	})
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		end()
		<-ended
	}()
	wait.Until(t, "the first question's answer", func() bool {
		_, why := d.Readiness()
		return strings.Contains(why, "no service instance")
	})
	h.reconcile(t, api.HealthCritical)
	wait.Until(t, "the pod being ready", d.Ready)
	h.reconcile(t, api.HealthPassing)
	if !h.Listed(t) {
		t.Error("the pod is ready, but clients do not get it")
	}
}

// While nothing changes, no new query is sent for what is missing. A change is
// reported.
func TestListingIsReported(t *testing.T) {
	agent := servers.StartConsul(t, servers.ConsulOptions{})
	h := onNodeAgent(t, agent)
	check(t, h.client.Agent().ServiceRegister(h.registration()))
	r := h.plugIn(t)
	unlisted(t, r, "is critical")
	ctx, end := context.WithCancel(t.Context())
	end()
	if _, ok := r.stillMissing(); !ok {
		t.Fatal("no call is open")
	}
	if listed, _, err := r.Listed(ctx); listed || err == nil {
		t.Errorf("with an ended context: %v, %v", listed, err)
	}
	passTTL(t, h)
	wait.Until(t, "a change being reported and seen", func() bool {
		select {
		case <-r.Changes():
			listed, _ := isListed(t, r)
			return listed
		default:
			return false
		}
	})
	must(t, r.Withdraw)
	if _, ok := r.stillMissing(); ok {
		t.Error("a call is open in a drain")
	}
}
