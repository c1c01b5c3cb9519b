package consul

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// TestFoundByAddress checks which instances count as the pod's when only its
// address is known.
func TestFoundByAddress(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	type registered struct {
		address string
		tagged  map[string]api.ServiceAddress
		port    int
	}
	pod := drain.Pod{Name: "web-0", IP: "10.9.8.7", AppPort: 8080}
	v6 := drain.Pod{Name: "web-0", IP: "fd00::7", AppPort: 8080}
	for _, test := range []struct {
		name string
		pod  drain.Pod
		registered
		found bool
	}{
		{"its address", pod, registered{address: "10.9.8.7", port: 8080}, true},
		{"an IPv6 address", v6, registered{address: "fd00::7", port: 8080}, true},
		{"a LAN address beside another", pod, registered{address: "lb.example", tagged: map[string]api.ServiceAddress{"lan": {Address: "10.9.8.7", Port: 8080}}, port: 8080}, true},
		{"its name", pod, registered{address: "web-0", port: 8080}, true},
		{"its name in a domain", pod, registered{address: "web-0.web.default.svc.cluster.local", port: 8080}, true},
		{"another port", pod, registered{address: "10.9.8.7", port: 8081}, false},
		{"another address", pod, registered{address: "10.9.8.70", port: 8080}, false},
		{"another name", pod, registered{address: "web-01.web.default.svc.cluster.local", port: 8080}, false},
		{"a service of the node", pod, registered{port: 8080}, false},
		{"a name where the pod's is not known", drain.Pod{IP: "10.9.8.7", AppPort: 8080}, registered{address: ".", port: 8080}, false},
	} {
		service := func(h *harness) *api.AgentService {
			return &api.AgentService{ID: h.id, Service: h.name, Address: test.address, Port: test.port, TaggedAddresses: test.tagged}
		}
		onAgent := func(t *testing.T, h *harness) (undo func()) {
			s := service(h)
			check(t, h.client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: s.ID, Name: s.Service, Address: s.Address, Port: s.Port, TaggedAddresses: s.TaggedAddresses}))
			return func() { check(t, h.client.Agent().ServiceDeregister(s.ID)) }
		}
		inCatalog := func(t *testing.T, h *harness) (undo func()) {
			_, err := h.client.Catalog().Register(&api.CatalogRegistration{Node: "ext", Address: "10.0.0.7", Service: service(h), SkipNodeUpdate: true}, nil)
			check(t, err)
			return func() {
				_, err := h.client.Catalog().Deregister(&api.CatalogDeregistration{Node: "ext", ServiceID: h.id}, nil)
				check(t, err)
			}
		}
		for _, way := range []struct {
			name     string
			at       *servers.ConsulAgent
			register func(*testing.T, *harness) func()
		}{{"agent", agent, onAgent}, {"catalog", server, inCatalog}} {
			t.Run(test.name+"/"+way.name, func(t *testing.T) {
				h := newHarness(t, way.at)
				h.pod = test.pod
				undo := way.register(t, h)
				wait.Until(t, "the instance being listed", func() bool {
					services, _, err := h.client.Health().Service(h.name, "", true, nil)
					check(t, err)
					return len(services) > 0
				})
				r := h.plugIn(t)
				found, err := r.Find(t.Context())
				if (err == nil) != test.found {
					t.Errorf("Find: %q, %v", found, err)
				}
				must(t, r.Withdraw)
				wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
				if got := len(h.maintenanceReasons(t)) > 0; got != test.found {
					t.Errorf("Withdraw: in maintenance: %v, want %v", got, test.found)
				}
				must(t, r.Deregister)
				if test.found {
					wait.Until(t, "the instance being gone", func() bool { return !h.Known(t) })
				} else {
					if !h.Known(t) {
						t.Error("Deregister removed what is not the pod's")
					}
					undo()
				}
			})
		}
	}
}

// TestFindSays checks that Find returns what was found and where, or what to
// set.
func TestFindSays(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	says := func(h *harness, texts ...string) {
		t.Helper()
		said, err := h.plugIn(t).Find(t.Context())
		if err != nil {
			said = err.Error()
		}
		for _, text := range append(texts, server.Address) {
			if !strings.Contains(said, text) {
				t.Errorf("Find says %q; want it to hold %q", said, text)
			}
		}
	}
	for _, pod := range []func(*testing.T, *servers.ConsulAgent) *harness{onNodeAgent, agentless} {
		h := pod(t, server)
		says(h, h.pod.IP+":8080", "set LASTCALL_CONSUL_SERVICE_ID")
		h.byID = true
		says(h, h.id, "check LASTCALL_CONSUL_SERVICE_ID", "CONSUL_HTTP_ADDR")
		h.Register(t)
		if h.mesh {
			says(h, h.id, h.name, h.proxyID(), "catalog", "k8s-node-virtual")
		} else {
			says(h, h.id, h.name, "held by the agent")
		}
	}
}

// TestOneAddressTwoServices: everything that the pod serves at its port is withdrawn.
func TestOneAddressTwoServices(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	for _, way := range []func(*testing.T, *servers.ConsulAgent) *harness{onNodeAgent, agentless} {
		one, two := way(t, server), way(t, server)
		two.pod = one.pod
		one.Register(t)
		two.Register(t)
		wait.Until(t, "both being listed", func() bool { return one.Listed(t) && two.Listed(t) })
		r := one.plugIn(t)
		must(t, r.Withdraw)
		wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
		if one.Listed(t) || two.Listed(t) {
			t.Fatal("Withdrawn returns true, but a client still gets the pod")
		}
		must(t, r.Deregister)
		wait.Until(t, "both being gone", func() bool { return !one.Known(t) && !two.Known(t) })
	}
}

// TestOddIDs: ids are free text.
func TestOddIDs(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	ids := []string{"host:app:8080", "a b", "a%2Fb", "100%", "a/b", "a?b=c&d#e", `say "hi"`, `back\slash`, "back`tick", "käse-🧀", `\`, `"`, "x'y", "a+b", "[x]"}
	for _, way := range []struct {
		name string
		new  func(*testing.T, *servers.ConsulAgent) *harness
	}{{"agent", onNodeAgent}, {"agentless", agentless}} {
		for _, id := range ids {
			t.Run(fmt.Sprintf("%s/%q", way.name, id), func(t *testing.T) {
				h := way.new(t, server)
				h.id, h.byID = id, true
				h.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
				r := h.plugIn(t)
				_, err := r.Find(t.Context())
				check(t, err)
				must(t, r.Withdraw)
				wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
				if h.Listed(t) {
					t.Fatal("Withdrawn returns true, but a client still gets the instance")
				}
				must(t, r.Restore)
				wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
				must(t, r.Deregister)
				wait.Until(t, "the instance being gone", func() bool { return !h.Known(t) })
			})
		}
	}
}

// TestHeldByAnotherAgent: the agent that holds the instance would undo a write
// to the catalog.
func TestHeldByAnotherAgent(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	h := onNodeAgent(t, agent)
	h.Register(t)
	wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	h.config.Address = server.Address
	r := h.plugIn(t)
	_, findErr := r.Find(t.Context())
	for name, err := range map[string]error{
		"Find": findErr, "Withdraw": r.Withdraw(t.Context()), "Deregister": r.Deregister(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), agent.Node) || !strings.Contains(err.Error(), "CONSUL_HTTP_ADDR") {
			t.Errorf("%s: %v; want an error that names the node %q and CONSUL_HTTP_ADDR", name, err, agent.Node)
		}
	}
	if withdrawn(t, r) || !h.Listed(t) || len(h.maintenanceReasons(t)) > 0 {
		t.Error("the catalog was written to")
	}
	// The pod's own agent can withdraw it; the server's answer is then as good
	// as the agent's.
	h.config.Address = agent.Address
	must(t, h.plugIn(t).Withdraw)
	wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
}

// TestSameIDOnSeveralNodes: an id only has to be unique on its node.
func TestSameIDOnSeveralNodes(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	h := newHarness(t, server)
	h.byID = true
	ips := []string{podIP(), podIP(), podIP()}
	for n, ip := range ips {
		_, err := h.client.Catalog().Register(&api.CatalogRegistration{
			Node: fmt.Sprintf("ext-%d", n), Address: "10.0.0.7",
			Service: &api.AgentService{ID: h.id, Service: h.name, Address: ip, Port: 8080},
		}, nil)
		check(t, err)
	}
	listed := func() (addresses []string) {
		entries, _, err := h.client.Health().Service(h.name, "", true, nil)
		check(t, err)
		for _, e := range entries {
			addresses = append(addresses, e.Service.Address)
		}
		return addresses
	}
	h.pod.IP = ips[1]
	r := h.plugIn(t)
	found, err := r.Find(t.Context())
	if err != nil || !strings.Contains(found, "ext-1") {
		t.Fatalf("Find: %q, %v; want the one on node ext-1", found, err)
	}
	must(t, r.Withdraw)
	if got := strings.Join(listed(), " "); !withdrawn(t, r) || got != ips[0]+" "+ips[2] && got != ips[2]+" "+ips[0] {
		t.Fatalf("after Withdraw of %s, clients get %s", ips[1], got)
	}
	h.pod.IP = podIP()
	stranger := h.plugIn(t)
	if err := stranger.Withdraw(t.Context()); err == nil || !strings.Contains(err.Error(), "LASTCALL_POD_IP") {
		t.Errorf("Withdraw with none of them at the pod's address: %v", err)
	}
	if len(listed()) != 2 {
		t.Error("somebody else's instance was withdrawn")
	}
}

// TestServiceChangesItsName: Find notices the new name.
func TestServiceChangesItsName(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	h := agentless(t, server)
	h.Register(t)
	r := h.plugIn(t)
	_, err := r.Find(t.Context())
	check(t, err)
	must(t, r.Deregister)
	h.name += "-renamed"
	h.register(t, h)
	found, err := r.Find(t.Context())
	if err != nil || !strings.Contains(found, h.name) {
		t.Fatalf("Find: %q, %v", found, err)
	}
	must(t, r.Withdraw)
	if !withdrawn(t, r) || h.Listed(t) {
		t.Fatal("the renamed service is still listed")
	}
}

// TestServersThatDoNotFilter: servers before Consul 1.14 do not filter their
// list of services. A proxy that drops all filters stands for any server like
// that.
func TestServersThatDoNotFilter(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	target, err := url.Parse(server.Address)
	check(t, err)
	old := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		q := r.Out.URL.Query()
		q.Del("filter")
		r.Out.URL.RawQuery = q.Encode()
		r.SetURL(target)
	}})
	t.Cleanup(old.Close)

	h, other := agentless(t, server), agentless(t, server)
	h.config.Address = old.URL
	h.Register(t)
	other.Register(t)
	for _, h.byID = range []bool{true, false} {
		r := h.plugIn(t)
		must(t, r.Withdraw)
		if !withdrawn(t, r) || h.Listed(t) {
			t.Error("the pod's instance is still listed")
		}
		if !other.Listed(t) {
			t.Error("another pod's instance was withdrawn")
		}
		must(t, r.Restore)
	}

	for n := range mostServices {
		_, err := h.client.Catalog().Register(&api.CatalogRegistration{Node: "ext", Address: "10.0.0.7", Service: &api.AgentService{Service: fmt.Sprintf("other-%d", n)}}, nil)
		check(t, err)
	}
	if err := h.plugIn(t).Withdraw(t.Context()); err == nil || !strings.Contains(err.Error(), "1.14") {
		t.Errorf("Withdraw with more services than are looked into: %v", err)
	}
}

// TestNoAgentAPI: a proxy in front of the servers may allow only the catalog's
// API.
func TestNoAgentAPI(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	target, err := url.Parse(server.Address)
	check(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/consul/v1/agent/") {
			http.NotFound(w, r)
			return
		}
		http.StripPrefix("/consul", proxy).ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	h := agentless(t, server)
	h.config.Address = front.URL + "/consul"
	h.Register(t)
	r := h.plugIn(t)
	must(t, r.Withdraw)
	if !withdrawn(t, r) || h.Listed(t) {
		t.Fatal("the instance is still listed")
	}
}
