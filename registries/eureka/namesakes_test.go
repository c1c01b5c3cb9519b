package eureka

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// namesakes returns two applications with the same instance id. The second is
// somebody else's, at another address.
func namesakes(t *testing.T, change func(*fakeApp)) (own, other *fakeApp) {
	t.Helper()
	s := startServers(t, twoServers)
	own = newApp(s, func(a *fakeApp) { a.cfg.App = a.app })
	if change != nil {
		change(own)
	}
	other = newApp(s, func(a *fakeApp) { a.id = own.id })
	return own, other
}

// beats sends heartbeats to all servers, with which they apply overrides.
func beats(t *testing.T, a *fakeApp) {
	t.Helper()
	for _, u := range a.urls {
		if code, _ := send(t, http.MethodPut, u+a.path(), nil); code != http.StatusOK {
			t.Fatalf("the heartbeat was answered with %d", code)
		}
	}
}

func TestNamesakesAreSpared(t *testing.T) {
	for name, change := range map[string]func(*fakeApp){
		"found by address":       nil,
		"known by id":            func(a *fakeApp) { a.cfg.InstanceID = a.id },
		"as DOWN":                func(a *fakeApp) { a.cfg.Status = down },
		"id without application": func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = "", a.id },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own, other := namesakes(t, change)
			own.Register(t)
			other.Register(t)
			wait.Until(t, "both being listed", func() bool { return own.Listed(t) && other.Listed(t) })
			r := own.registry(t)
			if text := registrytest.Find(t, r); !strings.Contains(text, other.app+"/"+other.id+" has the same id") {
				t.Errorf("Find says %q, and does not warn", text)
			}
			registrytest.Call(t, "Withdraw", r.Withdraw)
			for range 2 {
				own.Settle(t)
				beats(t, other)
				beats(t, own)
			}
			other.holds(t, up)
			own.holds(t, outOfService)
			registrytest.UntilWithdrawn(t, r)
			registrytest.Call(t, "a second Withdraw", r.Withdraw)

			// The app's status changes, which ends the withdrawal; it is
			// withdrawn again.
			own.registerAs(t, down)
			own.registerAs(t, up)
			wait.Until(t, "Withdrawn again", func() bool {
				registrytest.Call(t, "Withdraw again", r.Withdraw)
				return registrytest.Withdrawn(t, r)
			})
			own.Settle(t)
			beats(t, other)
			beats(t, own)
			own.holds(t, outOfService)
			other.holds(t, up)

			registrytest.Call(t, "Deregister", r.Deregister)
			own.Settle(t)
			beats(t, other)
			other.holds(t, up)
			if own.Known(t) {
				t.Error("deregistered, it is still known")
			}
		})
	}
}

func TestNamesakesRestore(t *testing.T) {
	t.Parallel()
	own, other := namesakes(t, nil)
	own.Register(t)
	other.Register(t)
	wait.Until(t, "both being listed", func() bool { return own.Listed(t) && other.Listed(t) })
	r := own.registry(t)
	registrytest.Find(t, r)
	registrytest.Call(t, "Withdraw", r.Withdraw)
	own.Settle(t)
	registrytest.Call(t, "Restore", r.Restore)
	own.Settle(t)
	beats(t, own)
	beats(t, other)
	own.holds(t, up)
	other.holds(t, up)

	// A sidecar that remembers nothing lets the app's heartbeat decide.
	registrytest.Call(t, "Withdraw", r.Withdraw)
	own.Settle(t)
	r = own.registry(t)
	registrytest.Find(t, r)
	registrytest.Call(t, "Restore", r.Restore)
	own.Settle(t)
	own.Heartbeat(t)
	own.holds(t, up)
	other.holds(t, up)
}

// A namesake that registers during the drain is taken out of service by the
// override, and put back at the end.
func TestLateNamesakeIsPutRight(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Registry) func(context.Context) error{
		"Deregister": func(r *Registry) func(context.Context) error { return r.Deregister },
		"Restore":    func(r *Registry) func(context.Context) error { return r.Restore },
	} {
		t.Run(name, func(t *testing.T) {
			own, other := namesakes(t, nil)
			own.Register(t)
			wait.Until(t, "it being listed", func() bool { return own.Listed(t) })
			r := own.registry(t)
			registrytest.Find(t, r)
			registrytest.Call(t, "Withdraw", r.Withdraw)
			own.Settle(t)
			other.Register(t)
			beats(t, other)
			wait.Until(t, "the namesake being registered", func() bool {
				return tells(t, other.urls[0]+"/apps/", asJSON, other.id) || other.statusAt(t, other.urls[0]) != ""
			})
			wait.Until(t, "Withdrawn seeing the namesake", func() bool {
				r.views = nil // as if the answers had been looked at later
				return registrytest.Withdrawn(t, r) && len(r.namesakesOf(own.name())) > 0
			})
			registrytest.Call(t, name, end(r))
			own.Settle(t)
			for _, u := range other.urls {
				if got := other.statusAt(t, u); got != up {
					if code, _ := send(t, http.MethodPut, u+other.path(), nil); code != http.StatusNotFound {
						t.Fatalf("it is %s at %s, and its heartbeat is answered with %d", got, u, code)
					}
				}
			}
			other.registerAs(t, up)
			other.holds(t, up)
		})
	}
}

func (a *fakeApp) name() name { return name{a.app, a.id} }

// The instance is found at any of the pod's addresses, in any notation.
func TestAnyAddressOfThePod(t *testing.T) {
	s := startServers(t, oneServer)
	for _, ip := range []string{"10.9.0.1", "::ffff:10.9.0.1", "fd00:0:0:0:0:0:0:9", "FD00::9", "fd00:0000::0009"} {
		a := newApp(s, func(a *fakeApp) { a.cfg.App = a.app })
		a.pod.IP = ip
		a.Register(t)
		a.pod = drain.Pod{IP: "10.9.0.1", IPs: []string{"10.9.0.1", "fd00::9"}, AppPort: 8080}
		r := a.registry(t)
		wait.Until(t, "Find of "+ip, func() bool { _, err := r.Find(t.Context()); return err == nil })
		if !r.Located() {
			t.Errorf("%s: found, and not located", ip)
		}
	}
	r := newApp(s, nil).registry(t)
	registrytest.Call(t, "Withdraw of an unknown instance", r.Withdraw)
	if !registrytest.Withdrawn(t, r) || r.Located() {
		t.Error("what was never found must be withdrawn, and not located")
	}
}

// The port is the right one, but it is disabled, so clients do not use it.
func TestHintOfADisabledPort(t *testing.T) {
	server := brokenServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"applications":{"application":[{"name":"ORDERS","instance":[{"instanceId":"pod-1","app":"ORDERS","ipAddr":"10.0.0.1","status":"UP","port":{"$":8080,"@enabled":"false"},"securePort":{"$":8443,"@enabled":"true"}}]}]}}`))
	})
	_, err := newRegistry(t, Config{URLs: []string{server}}).Find(t.Context())
	if err == nil || !strings.Contains(err.Error(), "port 8080, but has it disabled") || !strings.Contains(err.Error(), "8443") || strings.Contains(err.Error(), "not registered yet") {
		t.Errorf("Find says %v", err)
	}
}
