package consul

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// TestMesh: clients in the mesh discover the sidecar proxy, by its own checks.
// Here they do not depend on the service's checks.
func TestMesh(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	separate := func(t *testing.T, h *harness) {
		passTTL(t, h)
		check(t, h.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Kind: api.ServiceKindConnectProxy, ID: h.proxyID(), Name: h.name + "-sidecar-proxy", Address: h.pod.IP, Port: 20000,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: h.name, DestinationServiceID: h.id,
				LocalServiceAddress: "127.0.0.1", LocalServicePort: h.pod.AppPort},
			Check: &api.AgentServiceCheck{TTL: "10m", Status: api.HealthPassing},
		}))
	}
	for _, proxy := range []struct {
		name     string
		register func(*testing.T, *harness)
	}{
		{"registered by itself", func(t *testing.T, h *harness) {
			check(t, h.client.Agent().ServiceRegister(h.registration()))
			separate(t, h)
		}},
		{"registered with the service", func(t *testing.T, h *harness) {
			registration := h.registration()
			// Without checks of its own, the proxy is not listed when the
			// service is critical.
			registration.Connect = &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
				Port: 20000, Checks: api.AgentServiceChecks{{TTL: "10m", Status: api.HealthPassing}}}}
			check(t, h.client.Agent().ServiceRegister(registration))
			passTTL(t, h)
		}},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			h := onNodeAgent(t, agent)
			h.register = proxy.register
			inMesh := func() bool {
				proxies, _, err := h.client.Health().Connect(h.name, "", true, nil)
				check(t, err)
				return len(proxies) > 0
			}
			h.Register(t)
			wait.Until(t, "the proxy being listed", inMesh)
			r := h.plugIn(t)
			found, err := r.Find(t.Context())
			check(t, err)
			if !strings.Contains(found, "sidecar proxy") {
				t.Errorf("Find does not tell of the proxy: %s", found)
			}

			// If only the service were withdrawn, mesh clients would still
			// come.
			check(t, h.client.Agent().EnableServiceMaintenance(h.id, "lastcall: by hand"))
			wait.Until(t, "the service being withdrawn", func() bool {
				entries, _, err := h.client.Health().Service(h.name, "", true, nil)
				check(t, err)
				return len(entries) == 0
			})
			if !inMesh() || withdrawn(t, r) {
				t.Fatal("the proxy's health depends on the service's: this test shows nothing")
			}

			must(t, r.Withdraw)
			wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
			if inMesh() || h.Listed(t) {
				t.Fatal("Withdrawn returns true, but clients still get the pod")
			}
			must(t, r.Restore)
			wait.Until(t, "the proxy being listed again", inMesh)
			must(t, r.Withdraw)
			must(t, r.Deregister)
			wait.Until(t, "service and proxy being gone", func() bool { return !h.Known(t) })
		})
	}
}
