package system

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
	"lastcall/internal/test/wait"
)

// A pod is deleted. The kubelet sends a native sidecar SIGTERM after the app's
// container has exited.
func TestNativeSidecar(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address))
	s.Want(t, http.StatusOK, http.MethodGet, "/readyz")
	end := app.request()

	hook := s.PreStop(t.Context())
	s.Await(t, "the drain waiting for the request", holds(1))
	s.Want(t, http.StatusServiceUnavailable, http.MethodGet, "/readyz")
	s.Want(t, http.StatusOK, http.MethodGet, "/livez")
	if app.listed(t) {
		t.Error("Consul lists the pod while the drain waits for the last request")
	}
	waiting(t, hook)
	end()
	r := drains(t, hook)
	if r.Cause != drain.CauseHook || len(r.Phases) != 3 || r.Registries[0].State != "forgotten" || r.Counters[0].Name != "file" {
		t.Errorf("the report is %+v", r)
	}
	if !app.known(t) {
		t.Error("deregistered while the app lives")
	}

	app.stop()
	awaitAppGone(t, s)
	s.Signal(t, syscall.SIGTERM)
	exits(t, s, 0)
	if app.known(t) {
		t.Error("the instance is still registered")
	}
}

// A classic sidecar gets SIGTERM 10 ms after the hook, and must not end before
// the app.
func TestClassicSidecar(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address))
	end := app.request()

	hook := s.PreStop(t.Context())
	s.Await(t, "the drain", func(status drain.Status) bool { return status.Phase != drain.Serving })
	s.Signal(t, syscall.SIGTERM)
	s.AwaitLog(t, "signal received")
	s.Await(t, "the drain waiting for the request", holds(1))
	s.Want(t, http.StatusServiceUnavailable, http.MethodGet, "/readyz")
	s.Want(t, http.StatusConflict, http.MethodDelete, "/drain")
	waiting(t, hook)
	end()
	drains(t, hook)

	// It continues to answer until the app has ended. The app gets its SIGTERM now.
	end = app.request()
	s.Want(t, http.StatusOK, http.MethodGet, "/livez")
	if !app.known(t) {
		t.Error("deregistered while the app lives")
	}
	end()
	endsDeregistered(t, s, app)
}

// The pod's grace period is shorter than the sidecar's setting. The kubelet kills
// the app, sends a native sidecar SIGTERM, and leaves the hook's request open.
func TestTheAppsEndComesBeforeTheDrains(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address, "LASTCALL_GRACE_PERIOD=10m", "LASTCALL_ENDPOINTS_WAIT=5m"))
	hook := s.PreStop(t.Context())
	s.Await(t, "the shortest grace period's end", func(status drain.Status) bool {
		return status.Began != nil && time.Since(*status.Began) > time.Second
	})
	told := time.Now()
	s.Signal(t, syscall.SIGTERM)
	app.stop()
	exits(t, s, 0)
	if took := time.Since(told); took > 2*time.Second {
		t.Errorf("it has ended %v after its SIGTERM, and would have been killed", took)
	}
	if answer := <-hook; answer.Code != http.StatusGatewayTimeout || !strings.Contains(answer.Body, "LASTCALL_GRACE_PERIOD=10m0s") {
		t.Errorf("the hook got %+v", answer)
	}
	if app.known(t) {
		t.Error("the instance is still registered")
	}
}

// An app ignores its SIGTERM. The sidecar ends by itself before the end of the
// grace period. Before that it deregisters the instance, or logs why it did not.
func TestAppThatStays(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address, "LASTCALL_GRACE_PERIOD=10s", "LASTCALL_RESERVE=1s"))
	hook := s.PreStop(t.Context())
	s.Signal(t, syscall.SIGTERM)
	drains(t, hook)
	exits(t, s, 0)
	if app.listed(t) {
		t.Error("Consul lists the pod")
	}
	if app.known(t) && !strings.Contains(s.Log(), "not deregistered in time") {
		t.Error("the instance is still registered, and the log does not say why")
	}
}

func TestSignalWithoutAHook(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			app := startApp(t)
			s := sidecar.Start(t, &program, app.env()...)
			end := app.request()
			s.Signal(t, signal)
			s.Await(t, "the drain waiting for the request", holds(1))
			end()
			app.stop()
			exits(t, s, 0)
			if !strings.Contains(s.Log(), "begun (signal)") {
				t.Error("the log does not say what began the drain")
			}
		})
	}
}

// Without an app's port and without a registry, the process ends when the drain
// ends.
func TestSignalWithNothingToWaitFor(t *testing.T) {
	t.Parallel()
	s := sidecar.Start(t, &program, "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=0s", "LASTCALL_GRACE_PERIOD=10m")
	s.Signal(t, syscall.SIGTERM)
	exits(t, s, 0)
}

// Repeated SIGTERMs count as one: a restarted container runtime sends it again.
func TestARepeatedSIGTERM(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	s := sidecar.Start(t, &program, app.env("LASTCALL_ENDPOINTS_WAIT=0s")...)
	end := app.request()
	s.Signal(t, syscall.SIGTERM)
	s.Await(t, "the drain", func(status drain.Status) bool { return status.Phase == drain.Draining })
	for range 3 {
		s.Signal(t, syscall.SIGTERM)
	}
	end()
	s.Await(t, "the drain's end", func(status drain.Status) bool { return status.Phase == drain.Drained })
	app.stop()
	exits(t, s, 0)
}

func TestSIGINTInADrain(t *testing.T) {
	for name, test := range map[string]struct {
		first, second syscall.Signal
		work          bool
		code          int
	}{
		"after SIGTERM, nothing in flight":  {syscall.SIGTERM, syscall.SIGINT, false, 0},
		"after SIGTERM, work in flight":     {syscall.SIGTERM, syscall.SIGINT, true, 1},
		"SIGINT twice, work in flight":      {syscall.SIGINT, syscall.SIGINT, true, 1},
		"SIGINT twice, nothing in flight":   {syscall.SIGINT, syscall.SIGINT, false, 0},
		"SIGINT in a hook, work in flight":  {0, syscall.SIGINT, true, 1},
		"SIGINT in a hook, nothing at work": {0, syscall.SIGINT, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := startApp(t)
			s := sidecar.Start(t, &program, app.env("LASTCALL_ENDPOINTS_WAIT=5m")...)
			if test.work {
				end := app.request()
				defer end()
			}
			if test.first != 0 {
				s.Signal(t, test.first)
			} else {
				s.PreStop(t.Context())
			}
			s.Await(t, "the drain", func(status drain.Status) bool { return status.Phase == drain.Propagating })
			s.Signal(t, test.second)
			exits(t, s, test.code)
			if !strings.Contains(s.Log(), "cut_short") {
				t.Error("the log does not say that the drain was cut short")
			}
		})
	}
}

// The kubelet runs preStop even if it only restarts the app.
func TestRestartOfTheApp(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address))
	for _, restart := range []string{"the app listens again", "the app listens again, a second time"} {
		drains(t, s.PreStop(t.Context()))
		if app.listed(t) {
			t.Errorf("%s: Consul lists the pod after the drain", restart)
		}
		app.stop()
		awaitAppGone(t, s)
		s.Want(t, http.StatusServiceUnavailable, http.MethodGet, "/readyz")
		app.start()
		s.Await(t, restart, func(status drain.Status) bool {
			return status.Ready && status.Phase == drain.Serving && status.LastDrain.Outcome == drain.OutcomeDrained
		})
		s.Want(t, http.StatusOK, http.MethodGet, "/readyz")
		app.awaitListed(t, true)
	}

	// Now the pod is deleted.
	hook := s.PreStop(t.Context())
	s.Signal(t, syscall.SIGTERM)
	drains(t, hook)
	endsDeregistered(t, s, app)
}

// If the app's port is unknown, its postStart hook reports the restart.
func TestRestartToldByPostStart(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address, "LASTCALL_APP_PORT=", "LASTCALL_CONSUL_SERVICE_ID="+app.id))
	drains(t, s.PreStop(t.Context()))
	app.awaitListed(t, false)
	s.Want(t, http.StatusOK, http.MethodGet, "/poststart")
	s.Want(t, http.StatusOK, http.MethodGet, "/readyz")
	app.awaitListed(t, true)
}

func TestTakenBackByACall(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	app := announce(t, startApp(t), consul)
	s := startFound(t, app.withConsul(consul.Address))
	s.Want(t, http.StatusConflict, http.MethodDelete, "/drain") // there is no drain
	end := app.request()
	hook := s.PreStop(t.Context())
	s.Await(t, "the drain waiting for the request", holds(1))
	s.Want(t, http.StatusAccepted, http.MethodPost, "/drain") // joins the drain
	waiting(t, hook)
	s.Want(t, http.StatusOK, http.MethodDelete, "/drain")
	s.Want(t, http.StatusOK, http.MethodGet, "/readyz")
	app.awaitListed(t, true)
	if a := sidecar.Wait(t, hook, wait.Patience); a.Code != http.StatusConflict || a.Report(t).Outcome != drain.OutcomeTakenBack {
		t.Errorf("the hook was answered %d %s %v", a.Code, a.Body, a.Err)
	}
	end()
}

func TestManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	s := sidecar.Start(t, &program, app.env()...)
	end := app.request()
	const callers = 200
	answers := make([]sidecar.Answer, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() { answers[i] = <-s.PreStop(t.Context()) })
	}
	s.Await(t, "the drain waiting for the request", holds(1))
	end()
	all.Wait()
	for i, a := range answers {
		if a.Err != nil || a.Code != http.StatusOK || a.Body != answers[0].Body {
			t.Fatalf("caller %d was answered %d %s %v, and the first one %s", i, a.Code, a.Body, a.Err, answers[0].Body)
		}
	}
	if n := strings.Count(s.Log(), "drain: begun"); n != 1 {
		t.Errorf("%d drains began, want 1", n)
	}
}

func TestCallerThatHangsUp(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	s := sidecar.Start(t, &program, app.env()...)
	end := app.request()
	ctx, hangUp := context.WithCancel(t.Context())
	left := s.PreStop(ctx)
	s.Await(t, "the drain waiting for the request", holds(1))
	stays := s.PreStop(t.Context())
	hangUp()
	if a := sidecar.Wait(t, left, wait.Patience); a.Err == nil {
		t.Errorf("the caller that disconnected got the answer %d %s", a.Code, a.Body)
	}
	s.AwaitLog(t, "a caller of /prestop has left")
	waiting(t, stays)
	end()
	drains(t, stays)
}

// A pod may be deleted before it is ready: the hook is called as soon as the
// sidecar listens, before the registry is available.
func TestHookBeforeStartUpHasFinished(t *testing.T) {
	t.Parallel()
	consul := servers.StartConsul(t, servers.ConsulOptions{})
	front := startFront(t, consul.Address)
	app := announce(t, startApp(t), consul)
	front.refuse()
	address := freeport.Address(t)
	s := sidecar.Launch(t, &program, app.withConsul(front.url(), "LASTCALL_LISTEN="+address)...)
	s.URL = "http://" + address
	hook := make(chan sidecar.Answer, 1)
	go func() {
		for {
			a := s.Call(within(t), http.MethodGet, "/prestop")
			if a.Err == nil || !strings.Contains(a.Err.Error(), "connection refused") {
				hook <- a
				return
			}
		}
	}()
	s.AwaitLog(t, "begun (hook)")
	s.Await(t, "a failed call to the registry", func(status drain.Status) bool { return status.Registries[0].Failures > 0 })
	waiting(t, hook)
	front.repair()
	drains(t, hook)
	if app.listed(t) {
		t.Error("Consul lists the pod")
	}
}

// SIGTERM may come as early.
func TestSignalBeforeStartUpHasFinished(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	address := freeport.Address(t)
	s := sidecar.Launch(t, &program, app.env("LASTCALL_LISTEN="+address)...)
	s.URL = "http://" + address
	s.Eventually(t, "the port", func() error { return s.Call(within(t), http.MethodGet, "/livez").Err })
	s.Signal(t, syscall.SIGTERM)
	s.AwaitLog(t, "begun (signal)")
	app.stop()
	exits(t, s, 0)
}

// The kubelet may call the hook more than once: a second call after the drain gets
// the same report at once.
func TestHookIsDeliveredAgain(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	s := sidecar.Start(t, &program, app.env("LASTCALL_ENDPOINTS_WAIT=1s")...)
	first, second := prestop(t, s), prestop(t, s)
	if first.Code != http.StatusOK || second.Code != http.StatusOK || first.Body != second.Body {
		t.Errorf("answered %d %s, and then %d %s", first.Code, first.Body, second.Code, second.Body)
	}
	if r := first.Report(t); r.Seconds < time.Second.Seconds() {
		t.Errorf("the drain took %v s, which is less than the endpoints' wait", r.Seconds)
	}
}
