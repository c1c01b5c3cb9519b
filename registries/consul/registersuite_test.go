package consul

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/registries/registrytest"
)

// registered is a pod whose app the sidecar registers in a real Consul. Clients
// query it by HTTP and by DNS.
type registered struct{ *harness }

func (r registered) Known(t *testing.T) bool {
	t.Helper()
	if r.config.RegisterIn == "agent" {
		services, err := r.client.Agent().ServicesWithFilter(is("ID", r.id))
		check(t, err)
		if len(services) > 0 {
			return true
		}
	}
	return r.harness.Known(t)
}

func (r registered) Registry(t *testing.T) drain.Registry {
	t.Helper()
	return r.plugIn(t)
}

func (r registered) Next(t *testing.T) drain.Registry {
	t.Helper()
	next := *r.harness
	next.pod.IP = podIP()
	return next.plugIn(t)
}

// Lose removes the instance as its owner would.
func (r registered) Lose(t *testing.T) {
	t.Helper()
	if r.config.RegisterIn == "agent" {
		check(t, r.client.Agent().ServiceDeregister(r.id))
		return
	}
	_, err := r.client.Catalog().Deregister(&api.CatalogDeregistration{Node: "lastcall-" + r.pod.Name}, nil)
	check(t, err)
}

// TestRegistrarSuite runs at a node's agent, and in a server's catalog.
func TestRegistrarSuite(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	for in, at := range map[string]*servers.ConsulAgent{"agent": agent, "catalog": server} {
		t.Run(in, func(t *testing.T) {
			registrytest.RunRegistrar(t, func(t *testing.T) registrytest.RegistrarHarness {
				h := newHarness(t, at)
				h.config.RegisterIn = in
				h.id = fmt.Sprintf("%s-%s", h.name, h.pod.Name)
				h.pod.Service = &drain.Service{Name: h.name, Metadata: map[string]string{"version": "2"}}
				return registered{h}
			})
		})
	}
}
