package eureka

import (
	"net/http"
	"strings"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// registered is a pod whose app the sidecar registers in real servers.
type registered struct{ *fakeApp }

func (r registered) Registry(t *testing.T) drain.Registry {
	t.Helper()
	return r.plugIn(t, r.pod)
}

func (r registered) Next(t *testing.T) drain.Registry {
	t.Helper()
	next := r.pod
	next.IP = newApp(&servers.Eureka{URLs: r.urls}, nil).pod.IP
	return r.plugIn(t, next)
}

func (r registered) plugIn(t *testing.T, pod drain.Pod) *Registry {
	t.Helper()
	r.leavesWith(t)
	plugIn, err := New(r.cfg, pod)
	if err != nil {
		t.Fatal(err)
	}
	return plugIn
}

func (r registered) Lose(t *testing.T) {
	t.Helper()
	for _, u := range r.urls {
		if code, answer := send(t, http.MethodDelete, u+r.path(), nil); code != http.StatusOK && code != http.StatusNotFound {
			t.Fatalf("cancelling: status %d: %s", code, answer)
		}
	}
}

// newRegistered returns an app that the sidecar registers.
func newRegistered(s *servers.Eureka) registered {
	return registered{newApp(s, func(a *fakeApp) {
		a.cfg.InstanceID = a.id
		a.pod.Name = a.id
		a.pod.Service = &drain.Service{Name: a.app, Metadata: map[string]string{"version": "2"}}
	})}
}

func TestRegistrarSuite(t *testing.T) {
	for name, start := range map[string]func() (*servers.Eureka, error){"one server": oneServer, "two servers": twoServers} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServers(t, start)
			registrytest.RunRegistrar(t, func(*testing.T) registrytest.RegistrarHarness { return newRegistered(s) })
		})
	}
}

// The Java client discovers an app that the sidecar has registered, and stops
// using it in a drain. Its log shows what it does with its copy.
func TestJavaClientOfARegisteredApp(t *testing.T) {
	t.Setenv("LOGGING_LEVEL_COM_NETFLIX_DISCOVERY", "DEBUG")
	s := startServers(t, oneServer)
	consumer := newApp(s, nil)
	java := servers.StartEurekaApp(t, s, consumer.app, consumer.id, "127.0.0.1")
	a := newRegistered(s)
	r := a.plugIn(t, a.pod)
	logs := func(what string) {
		t.Helper()
		wait.Until(t, what+" instance "+a.id+" in the client's log", func() bool {
			return strings.Contains(java.Log(), what+" instance "+a.id)
		})
	}
	call := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	call(r.Register(t.Context(), true))
	logs("Added")
	call(r.Withdraw(t.Context()))
	logs("Modified")
	call(r.Deregister(t.Context()))
	logs("Deleted")
}
