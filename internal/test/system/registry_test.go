package system

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
)

// faults are the ways a registry can fail. Each lasts until the returned function
// is called.
var faults = map[string]func(t *testing.T, f *front, consul *servers.ConsulAgent) (repair func()){
	"refuses": func(_ *testing.T, f *front, _ *servers.ConsulAgent) func() {
		f.refuse()
		return f.repair
	},
	"hangs": func(t *testing.T, _ *front, consul *servers.ConsulAgent) func() {
		consul.Freeze(t)
		return func() { consul.Thaw(t) }
	},
	"takes calls and drops them": func(_ *testing.T, f *front, _ *servers.ConsulAgent) func() {
		f.fail(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		return f.repair
	},
	"answers 500": func(_ *testing.T, f *front, _ *servers.ConsulAgent) func() {
		f.fail(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
		})
		return f.repair
	},
	"answers garbage": func(_ *testing.T, f *front, _ *servers.ConsulAgent) func() {
		f.fail(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>a captive portal</html>")
		})
		return f.repair
	},
}

func TestRegistryFails(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consul := servers.StartConsul(t, servers.ConsulOptions{})
			t.Run("for the whole budget", func(t *testing.T) {
				front := startFront(t, consul.Address)
				app := announce(t, startApp(t), consul)
				s := startFound(t, app.withConsul(front.url(), short()...))
				repair := fault(t, front, consul)
				defer repair()

				a := prestop(t, s)
				if a.Code != http.StatusGatewayTimeout {
					t.Fatalf("the hook was answered %d %s %v", a.Code, a.Body, a.Err)
				}
				r := a.Report(t)
				if r.Outcome != drain.OutcomeExpired || !strings.Contains(r.WaitingFor, "consul") || r.InFlight == nil || *r.InFlight != 0 {
					t.Errorf("the report does not say what the drain waited for: %s", a.Body)
				}
				if got := r.Registries[0]; got.State == "gone" || got.State == "forgotten" {
					t.Errorf("the report says that clients no longer discover the pod: %s", a.Body)
				}
				s.Want(t, http.StatusServiceUnavailable, http.MethodGet, "/readyz")
				s.Want(t, http.StatusOK, http.MethodGet, "/livez")

				// Nothing was in flight, so the exit code does not report remaining
				// work.
				s.Signal(t, syscall.SIGTERM)
				app.stop()
				exits(t, s, 0)
			})
			t.Run("and is back within the budget", func(t *testing.T) {
				front := startFront(t, consul.Address)
				app := announce(t, startApp(t), consul)
				s := startFound(t, app.withConsul(front.url()))
				end := app.request()
				repair := fault(t, front, consul)

				hook := s.PreStop(t.Context())
				s.Await(t, "a failed call", func(status drain.Status) bool { return status.Registries[0].Failures > 0 })
				s.Want(t, http.StatusServiceUnavailable, http.MethodGet, "/readyz")
				waiting(t, hook)
				repair()
				s.Await(t, "the drain waiting for the request", holds(1))
				if app.listed(t) {
					t.Error("Consul lists the pod")
				}
				end()
				r := drains(t, hook)
				if r.Registries[0].Failures == 0 || r.Registries[0].Error != "" {
					t.Errorf("the report lacks the failures, or the success after them: %+v", r.Registries[0])
				}
				s.Signal(t, syscall.SIGTERM)
				endsDeregistered(t, s, app)
			})
		})
	}
}

// A registry fails only at the end: the instance stays registered, out of service,
// and the process ends in time.
func TestRegistryFailsAtDeregistration(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	front := startFront(t, consul.Address)
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(front.url(), "LASTCALL_GRACE_PERIOD=10s"))
	drains(t, s.PreStop(t.Context()))
	front.refuse()
	s.Signal(t, syscall.SIGTERM)
	app.stop()
	exits(t, s, 0)
	if !app.known(t) || app.listed(t) {
		t.Error("the instance has changed since the drain")
	}
	if !strings.Contains(s.Log(), "not deregistered in time") {
		t.Error("the log does not say that the instance has stayed")
	}
}

// A registry fails while a drain is taken back. It lists the instance again when it
// has recovered.
func TestRegistryFailsAtRestore(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	front := startFront(t, consul.Address)
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(front.url()))
	drains(t, s.PreStop(t.Context()))
	front.hang()
	s.Want(t, http.StatusOK, http.MethodDelete, "/drain")
	s.Want(t, http.StatusOK, http.MethodGet, "/readyz")
	if app.listed(t) {
		t.Fatal("the instance was restored although the registry hangs")
	}
	front.repair()
	app.awaitListed(t, true)
}

// The environment may describe the registration wrongly. The sidecar starts anyway,
// and reports what is wrong.
func TestInstanceIsNotRegistered(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := startApp(t)
	s := startUnfound(t, app.withConsul(consul.Address))
	s.Want(t, http.StatusOK, http.MethodGet, "/readyz")
	if status := s.Want(t, http.StatusOK, http.MethodGet, "/status"); !strings.Contains(status.Body, "was never found") {
		t.Errorf("/status has no warning:\n%s", status.Body)
	}
	// An instance that was not found is not withdrawn: the drain ends, and reports
	// this.
	a := prestop(t, s)
	if r := a.Report(t); a.Code != http.StatusFailedDependency || r.Outcome != drain.OutcomeNotFound || r.Registries[0].State != "not found" {
		t.Errorf("the hook was answered %d %s, want 424 and %s", a.Code, a.Body, drain.OutcomeNotFound)
	}
}

// An app that registers only after the drain has begun is withdrawn too.
func TestInstanceRegistersInADrain(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := startApp(t)
	answer := app.request()
	s := startUnfound(t, app.withConsul(consul.Address))
	hook := s.PreStop(t.Context())
	s.AwaitLog(t, "it is searched for until the drain ends")
	late := register(t, app, consul)
	s.AwaitLog(t, "consul: withdrawn")
	late.awaitListed(t, false)
	answer()
	drains(t, hook)
}
