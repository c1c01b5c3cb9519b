package consul

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// TestACL checks which rules are needed, and which error names a missing one,
// at a server that denies by default.
func TestACL(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{ACL: true})
	agent := servers.StartConsul(t, servers.ConsulOptions{ACL: true, Join: server})
	token := func(t *testing.T, h *harness, rules string) string {
		t.Helper()
		rules = strings.NewReplacer("WEB", h.name, "PROXY", h.name+"-sidecar-proxy").Replace(rules)
		policy, _, err := h.client.ACL().PolicyCreate(&api.ACLPolicy{Name: "policy-" + h.id, Rules: rules}, nil)
		check(t, err)
		made, _, err := h.client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
		check(t, err)
		return made.SecretID
	}
	ways := []struct {
		name string
		at   *servers.ConsulAgent
		new  func(*testing.T, *servers.ConsulAgent) *harness
	}{{"agent", agent, onNodeAgent}, {"agentless", server, agentless}}

	for _, way := range ways {
		for _, byID := range []bool{true, false} {
			name := way.name + "/by address"
			if byID {
				name = way.name + "/by id"
			}
			t.Run(name+"/enough", func(t *testing.T) {
				h := way.new(t, way.at)
				h.byID = byID
				h.config.Token = token(t, h, `service "WEB" { policy = "write" } service "PROXY" { policy = "write" } node_prefix "" { policy = "read" }`)
				h.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
				r := h.plugIn(t)
				must(t, func(ctx context.Context) error { _, err := r.Find(ctx); return err })
				must(t, r.Withdraw)
				wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
				must(t, r.Restore)
				wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
				must(t, r.Withdraw)
				must(t, r.Deregister)
				wait.Until(t, "the instance being gone", func() bool { return !h.Known(t) })
				// A narrow token sees nothing else. That must not look like
				// missing rights.
				if !withdrawn(t, r) {
					t.Error("Withdrawn returns false for an instance that is gone")
				}
			})
			t.Run(name+"/read only", func(t *testing.T) {
				h := way.new(t, way.at)
				h.byID = byID
				h.config.Token = token(t, h, `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
				h.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
				r := h.plugIn(t)
				for name, call := range map[string]func(context.Context) error{"Withdraw": r.Withdraw, "Deregister": r.Deregister} {
					err := call(t.Context())
					if err == nil || !strings.Contains(err.Error(), "Permission denied") || !strings.Contains(err.Error(), `service:write on "`+h.name) || strings.Contains(err.Error(), h.config.Token) {
						t.Errorf("%s: %v", name, err)
					}
				}
				if withdrawn(t, r) || !h.Listed(t) {
					t.Error("a token that may only read took the instance out of service")
				}
			})
			// A token that may not see the instance must not make it look gone.
			for _, blind := range []struct{ name, rules string }{
				{"no node", `service_prefix "" { policy = "write" }`},
				{"no service", `node_prefix "" { policy = "write" }`},
				{"nothing", `key "a" { policy = "read" }`},
			} {
				t.Run(name+"/"+blind.name, func(t *testing.T) {
					h := way.new(t, way.at)
					h.byID = byID
					h.config.Token = token(t, h, blind.rules)
					h.Register(t)
					wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
					gone, err := h.plugIn(t).Withdrawn(t.Context())
					if err == nil || gone || !strings.Contains(err.Error(), "node:read") || !strings.Contains(err.Error(), "service:") || strings.Contains(err.Error(), h.config.Token) {
						t.Errorf("Withdrawn: %v, %v; want an error that names the rules", gone, err)
					}
				})
			}
			t.Run(name+"/no token", func(t *testing.T) {
				h := way.new(t, way.at)
				h.byID = byID
				h.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
				failing(t, h.plugIn(t), "CONSUL_HTTP_TOKEN")
			})
			t.Run(name+"/a token that was deleted", func(t *testing.T) {
				h := way.new(t, way.at)
				h.byID = byID
				h.config.Token = "5d3a6f6e-2222-4c1b-9c7e-0a8d1f1f0002"
				h.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
				failing(t, h.plugIn(t), "HTTP status 403", "CONSUL_HTTP_TOKEN", "expired or been deleted")
			})
		}
	}
	t.Run("a proxy that may not be written", func(t *testing.T) {
		h := agentless(t, server)
		h.config.Token = token(t, h, `service "WEB" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
		h.Register(t)
		r := h.plugIn(t)
		if err := r.Withdraw(t.Context()); err == nil || !strings.Contains(err.Error(), `service:write on "`+h.name+`-sidecar-proxy"`) {
			t.Errorf("Withdraw: %v; want an error that names the proxy", err)
		}
		if withdrawn(t, r) {
			t.Error("Withdrawn returns true while mesh clients get the proxy")
		}
	})
}
