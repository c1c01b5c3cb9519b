package consul

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// The configured id belongs to another pod.
func TestIDOfAnotherAddress(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	for name, start := range map[string]func(*testing.T, *servers.ConsulAgent) *harness{"agent": onNodeAgent, "agentless": agentless} {
		t.Run(name, func(t *testing.T) {
			h := start(t, server)
			h.byID = true
			h.Register(t)
			wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
			other := h.pod.IP
			h.pod.IP = podIP()
			r := h.plugIn(t)
			for what, call := range map[string]func(context.Context) error{
				"Withdraw": r.Withdraw, "Deregister": r.Deregister, "Restore": r.Restore,
				"Withdrawn": func(ctx context.Context) error { _, err := r.Withdrawn(ctx); return err },
				"Find":      func(ctx context.Context) error { _, err := r.Find(ctx); return err },
			} {
				err := call(t.Context())
				if err == nil || !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), h.pod.IP) || !strings.Contains(err.Error(), "LASTCALL_CONSUL_SERVICE_ID") {
					t.Errorf("%s: %v; want an error that names %s and %s", what, err, other, h.pod.IP)
				}
			}
			if r.Located() || !h.Known(t) || !h.Listed(t) || len(h.maintenanceReasons(t)) > 0 {
				t.Error("somebody else's instance was touched")
			}

			// The node's address, or any of the pod's, is accepted.
			for _, pod := range []drain.Pod{
				{IP: h.pod.IP, HostIP: other, AppPort: 8080},
				{IP: h.pod.IP, IPs: []string{h.pod.IP, "::ffff:" + other}, AppPort: 8080},
			} {
				h.pod = pod
				if _, err := h.plugIn(t).Find(t.Context()); err != nil {
					t.Errorf("Find of %+v: %v", pod, err)
				}
			}
		})
	}
}

// A successor takes over the id while the pod drains.
func TestSuccessorTakesTheID(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	for name, start := range map[string]func(*testing.T, *servers.ConsulAgent) *harness{"agent": onNodeAgent, "agentless": agentless} {
		t.Run(name, func(t *testing.T) {
			h := start(t, server)
			h.byID = true
			h.Register(t)
			wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
			r := h.plugIn(t)
			_, err := r.Find(t.Context())
			check(t, err)
			must(t, r.Withdraw)
			wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
			h.Register(t) // under another address
			wait.Until(t, "the successor being in service", func() bool {
				if !withdrawn(t, r) {
					t.Fatal("Withdrawn returns false for a pod that no client gets")
				}
				return h.Listed(t)
			})
			must(t, r.Withdraw)
			must(t, r.Deregister)
			hurried, cancel := context.WithTimeout(t.Context(), 1900*time.Millisecond)
			defer cancel()
			if err := r.Deregister(hurried); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if !h.Known(t) || !h.Listed(t) || len(h.maintenanceReasons(t)) > 0 {
				t.Error("the successor was withdrawn or deregistered")
			}
		})
	}
}

// An IPv6 address is found in any notation.
func TestNotationsOfAnAddress(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	for _, address := range []string{"10.9.8.7", "::ffff:10.9.8.7", "fd00::ab7", "FD00::AB7", "fd00:0:0:0:0:0:0:ab7", "fd00:0000:0000:0000:0000:0000:0000:0ab7"} {
		h := newHarness(t, server)
		h.pod = drain.Pod{IP: "10.9.8.7", IPs: []string{"10.9.8.7", "fd00::ab7"}, AppPort: 8080}
		for _, way := range []func(){
			func() {
				check(t, h.client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: h.id, Name: h.name, Address: address, Port: 8080}))
			},
			func() {
				check(t, h.client.Agent().ServiceDeregister(h.id))
				_, err := h.client.Catalog().Register(&api.CatalogRegistration{Node: "ext", Address: "10.0.0.7", SkipNodeUpdate: true,
					Service: &api.AgentService{ID: h.id, Service: h.name, Address: address, Port: 8080}}, nil)
				check(t, err)
			},
		} {
			way()
			wait.Until(t, "Find of "+address, func() bool { _, err := h.plugIn(t).Find(t.Context()); return err == nil })
		}
		must(t, h.plugIn(t).Deregister)
	}
	// The error for an instance that is not found names the datacenter that was
	// searched.
	_, err := newHarness(t, server).plugIn(t).Find(t.Context())
	if err == nil || !strings.Contains(err.Error(), `datacenter "dc1"`) {
		t.Errorf("Find says %v, want it to name the datacenter", err)
	}
}
