package consul

import (
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// What the app and its platform do while the pod drains, with the real server.

func TestWhatTheAppDoesMeanwhile(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	leaving := func(t *testing.T) (*harness, *Registry) {
		h := onNodeAgent(t, agent)
		h.Register(t)
		wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
		r := h.plugIn(t)
		must(t, r.Withdraw)
		wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
		return h, r
	}
	stays := func(t *testing.T, h *harness, r *Registry) {
		t.Helper()
		if !withdrawn(t, r) || h.Listed(t) {
			t.Fatal("the instance is back in service")
		}
	}
	comesBack := func(t *testing.T, h *harness, r *Registry) {
		t.Helper()
		wait.Until(t, "Withdrawn seeing that the instance is listed again", func() bool { return !withdrawn(t, r) })
		must(t, r.Withdraw)
		wait.Until(t, "Withdrawn after a second Withdraw", func() bool { return withdrawn(t, r) })
		stays(t, h, r)
	}

	t.Run("feeds its TTL check", func(t *testing.T) {
		h, r := leaving(t)
		for _, status := range []string{api.HealthPassing, api.HealthWarning, api.HealthCritical, api.HealthPassing} {
			check(t, h.client.Agent().UpdateTTL("service:"+h.id, "", status))
		}
		stays(t, h, r)
	})
	t.Run("registers the same again", func(t *testing.T) {
		h, r := leaving(t)
		h.register(t, h)
		stays(t, h, r)
	})
	t.Run("registers something else under the same id", func(t *testing.T) {
		h, r := leaving(t)
		changed := h.registration()
		changed.Tags, changed.Meta = []string{"v2"}, map[string]string{"zone": "b"}
		check(t, h.client.Agent().ServiceRegister(changed))
		passTTL(t, h)
		wait.Until(t, "the change being in the catalog", func() bool {
			services, _, err := h.client.Catalog().Service(h.name, "v2", nil)
			check(t, err)
			return len(services) == 1
		})
		stays(t, h, r)
	})
	t.Run("registers with replace-existing-checks", func(t *testing.T) {
		h, r := leaving(t)
		check(t, h.client.Agent().ServiceRegisterOpts(h.registration(), api.ServiceRegisterOpts{ReplaceExistingChecks: true}))
		passTTL(t, h)
		comesBack(t, h, r)
	})
	t.Run("deregisters and registers", func(t *testing.T) {
		h, r := leaving(t)
		check(t, h.client.Agent().ServiceDeregister(h.id))
		wait.Until(t, "the instance being gone", func() bool { return !h.Known(t) })
		if !withdrawn(t, r) {
			t.Fatal("Withdrawn returns false for an instance that is gone")
		}
		must(t, r.Withdraw)
		must(t, r.Restore)
		h.register(t, h)
		comesBack(t, h, r)
	})
	t.Run("registers late, after the drain has begun", func(t *testing.T) {
		h := onNodeAgent(t, agent)
		r := h.plugIn(t)
		must(t, r.Withdraw)
		if !withdrawn(t, r) {
			t.Fatal("Withdrawn returns false for an instance that is not there")
		}
		h.Register(t)
		comesBack(t, h, r)
	})
	t.Run("its agent crashes and starts again", func(t *testing.T) {
		h, r := leaving(t)
		agent.Kill()
		agent.Start(t)
		stays(t, h, r)
		must(t, r.Restore)
		passTTL(t, h)
		wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
	})
}

func TestWhatConsulK8sDoesMeanwhile(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	leaving := func(t *testing.T) (*harness, *Registry) {
		h := agentless(t, server)
		h.Register(t)
		r := h.plugIn(t)
		must(t, r.Withdraw)
		if !withdrawn(t, r) || h.Listed(t) {
			t.Fatal("the instance is still listed")
		}
		return h, r
	}
	t.Run("reconciles", func(t *testing.T) {
		h, r := leaving(t)
		h.reconcile(t, api.HealthCritical) // the pod is not ready any more
		h.reconcile(t, api.HealthPassing)
		if !withdrawn(t, r) || h.Listed(t) {
			t.Fatal("the instance is back in service")
		}
	})
	t.Run("marks the pod critical by itself", func(t *testing.T) {
		h, r := leaving(t)
		h.reconcile(t, api.HealthCritical)
		must(t, r.Restore)
		if got := h.maintenanceReasons(t); len(got) != 0 {
			t.Fatalf("Restore left maintenance: %q", got)
		}
		if !withdrawn(t, r) {
			t.Fatal("Withdrawn returns false while the controller's check is critical")
		}
		h.reconcile(t, api.HealthPassing)
		if withdrawn(t, r) || !h.Listed(t) {
			t.Fatal("Restore changed the controller's check")
		}
	})
	t.Run("deregisters the pod", func(t *testing.T) {
		h, r := leaving(t)
		for _, id := range []string{h.id, h.proxyID()} {
			_, err := h.client.Catalog().Deregister(&api.CatalogDeregistration{Node: "k8s-node-virtual", ServiceID: id}, nil)
			check(t, err)
		}
		if !withdrawn(t, r) {
			t.Fatal("Withdrawn returns false for an instance that is gone")
		}
		must(t, r.Withdraw)
		must(t, r.Restore)
		must(t, r.Deregister)
		if h.Known(t) || len(h.maintenanceReasons(t)) > 0 {
			t.Fatal("something was registered for an instance that was gone")
		}
	})
}

// TestSomebodyElsesMaintenance: an instance that an operator has taken out of
// service stays out, whatever the pod does.
func TestSomebodyElsesMaintenance(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	const reason = "bad disk, ask Kim"
	for _, way := range []struct {
		name    string
		new     func(*testing.T, *servers.ConsulAgent) *harness
		byOther func(*testing.T, *harness)
	}{
		{"agent", onNodeAgent, func(t *testing.T, h *harness) {
			check(t, h.client.Agent().EnableServiceMaintenance(h.id, reason))
		}},
		{"agentless", agentless, func(t *testing.T, h *harness) {
			for _, id := range []string{h.id, h.proxyID()} {
				_, err := h.client.Catalog().Register(&api.CatalogRegistration{
					Node: "k8s-node-virtual", SkipNodeUpdate: true,
					Check: &api.AgentCheck{CheckID: api.ServiceMaintPrefix + id, ServiceID: id, Status: api.HealthCritical, Notes: reason},
				}, nil)
				check(t, err)
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			h := way.new(t, server)
			h.Register(t)
			way.byOther(t, h)
			r := h.plugIn(t)
			_, err := r.Find(t.Context())
			check(t, err)
			must(t, r.Withdraw)
			must(t, r.Restore)
			wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
			reasons := h.maintenanceReasons(t)
			if len(reasons) == 0 {
				t.Fatal("the operator's maintenance is over")
			}
			for _, got := range reasons {
				if got != reason {
					t.Errorf("the reason became %q, want the operator's, %q", got, reason)
				}
			}
		})
	}
}

// TestLeftoverIsKnownByItsReason: nothing else could identify it. Registering
// the same definition again changes no index, so the catalog does not show the
// order of events.
func TestLeftoverIsKnownByItsReason(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	h := onNodeAgent(t, server)
	h.Register(t)
	wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	modified := func() uint64 {
		services, _, err := h.client.Catalog().Service(h.name, "", nil)
		check(t, err)
		return services[0].ModifyIndex
	}
	before := modified()
	r := h.plugIn(t)
	must(t, r.Withdraw)
	wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
	if got := h.maintenanceReasons(t); len(got) != 1 || got[0] != r.reason() {
		t.Fatalf("the maintenance says %q, want %q", got, r.reason())
	}
	h.register(t, h)
	if modified() != before {
		t.Error("registering the same again changes the index: Find could use it")
	}

	// The name and address are the same: for Consul, it is the same pod.
	_, err := h.plugIn(t).Find(t.Context())
	check(t, err)
	if !withdrawn(t, r) {
		t.Error("Find ended the pod's own withdrawal")
	}
	// Each of these changes identifies another pod.
	for _, change := range []func(){
		func() { h.pod.IP = podIP() },
		func() { h.pod.Name = "web-another" },
	} {
		must(t, r.Withdraw)
		wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
		change()
		h.register(t, h)
		r = h.plugIn(t)
		_, err := r.Find(t.Context())
		check(t, err)
		wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	}
}
