package eureka

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// An app that is restarted registers while its drain is taken back. Sometimes a
// server then keeps the withdrawal permanently, without an override that could
// be removed. The instance must become UP nevertheless.
func TestAppRegistersDuringRestore(t *testing.T) {
	s := startServers(t, oneServer)
	const atOnce = 8
	kept := make(chan struct{})
	var found sync.Once
	var trying sync.WaitGroup
	for range atOnce {
		trying.Go(func() {
			for range 8000 / atOnce { // usually some dozens are enough
				select {
				case <-kept:
					return
				default:
				}
				a := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id })
				a.post(t, up)
				r := a.registry(t)
				registrytest.Call(t, "Withdraw", r.Withdraw)
				var both sync.WaitGroup
				both.Go(func() { a.post(t, up) })
				both.Go(func() { registrytest.Call(t, "Restore", r.Restore) })
				both.Wait()
				a.Heartbeat(t)
				if a.statusAt(t, s.URLs[0]) == up {
					a.leave()
					continue
				}
				found.Do(func() { close(kept) })
				registrytest.Find(t, r)
				a.Heartbeat(t)
				if got := a.statusAt(t, s.URLs[0]); got != up {
					i, _ := a.at(t, s.URLs[0])
					t.Errorf("the app has said that it is UP, and is %s (overridden by %v, %v)", got, i["overriddenStatus"], i["actionType"])
				}
			}
		})
	}
	trying.Wait()
	select {
	case <-kept:
	default:
		t.Error("no server has kept a withdrawal: if they no longer do that, Find need not care")
	}
}

// An instance is OUT_OF_SERVICE without an override right after one was
// removed: for the reason above, or because the app says so itself.
func TestRemainsOfAWithdrawal(t *testing.T) {
	s := startServers(t, twoServers)
	// keeps makes one peer keep OUT_OF_SERVICE, as if replicated from another.
	keeps := func(t *testing.T, a *fakeApp, server string) {
		t.Helper()
		a.tell(t, server, outOfService)
		if i, _ := a.at(t, server); i["status"] != outOfService || i["overriddenStatus"] != "UNKNOWN" {
			t.Fatalf("it is %v, overridden by %v", i["status"], i["overriddenStatus"])
		}
	}
	restored := func(t *testing.T) (*fakeApp, *Registry) {
		t.Helper()
		a := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.InstanceID = a.app, a.id })
		a.Register(t)
		r := a.registry(t)
		registrytest.Call(t, "Withdraw", r.Withdraw)
		a.Settle(t)
		registrytest.Call(t, "Restore", r.Restore)
		a.Settle(t)
		return a, r
	}

	t.Run("another peer says UP", func(t *testing.T) {
		t.Parallel()
		a, r := restored(t)
		keeps(t, a, s.URLs[1])
		if text := registrytest.Find(t, r); !strings.Contains(text, "set again") {
			t.Errorf("Find says %q", text)
		}
		if got := a.statusAt(t, s.URLs[1]); got != up {
			t.Errorf("it is %s at once, want UP", got)
		}
		a.Settle(t)
		a.holds(t, up)
		if text := registrytest.Find(t, r); strings.Contains(text, "set again") {
			t.Errorf("Find does it again: %q", text)
		}
	})

	// A peer that hung applies changes late that the other has replicated to
	// it.
	t.Run("another peer was told UP later", func(t *testing.T) {
		t.Parallel()
		a, r := restored(t)
		if code, _ := sendWith(t, http.MethodPut, s.URLs[1]+a.path()+"/status?value="+outOfService, nil, fromPeer()); code != http.StatusOK {
			t.Fatalf("the override was answered with %d", code)
		}
		wait.Until(t, "Find putting it right", func() bool { return strings.Contains(registrytest.Find(t, r), "set again") })
		a.Settle(t)
		a.holds(t, up)
	})

	t.Run("nobody says UP", func(t *testing.T) {
		t.Parallel()
		for _, says := range []string{up, outOfService} {
			a, r := restored(t)
			for _, u := range s.URLs {
				keeps(t, a, u)
			}
			registrytest.Find(t, r)
			a.Settle(t)
			if code, _ := send(t, http.MethodPut, s.URLs[0]+a.path()+"?status="+says, nil); code != http.StatusNotFound {
				t.Fatalf("the next heartbeat was answered with %d, want 404, which makes the app register", code)
			}
			a.registerAs(t, says)
			a.holds(t, says)
		}
	})

	t.Run("of which nothing is known", func(t *testing.T) {
		t.Parallel()
		a, _ := restored(t)
		keeps(t, a, s.URLs[1])
		registrytest.Find(t, a.registry(t)) // by a sidecar that has withdrawn nothing
		if got := a.statusAt(t, s.URLs[1]); got != outOfService {
			t.Errorf("it was made %s", got)
		}
	})

	t.Run("withdrawn again", func(t *testing.T) {
		t.Parallel()
		a, r := restored(t)
		keeps(t, a, s.URLs[1])
		registrytest.Call(t, "Withdraw", r.Withdraw)
		registrytest.Find(t, r)
		for _, u := range s.URLs {
			if got := a.statusAt(t, u); got == up || got == "UNKNOWN" {
				t.Errorf("it is %s at %s", got, u)
			}
		}
	})
}

// A status that somebody has set is distinguished from a leftover.
func TestWhatIsLeftBehind(t *testing.T) {
	const never, justNow, long = -1, time.Second, 2 * residueFor
	at := func(status, overridden string, dirty millis, age time.Duration) sighting {
		return sighting{seen: &seen{instance: instance{Status: loose(status), Overridden: loose(overridden), Dirty: dirty}, age: age}}
	}
	isUp := at(up, "UNKNOWN", "7", time.Minute)
	for name, test := range map[string]struct {
		restoredAt time.Duration // this long ago
		withdrawn  bool
		of         []sighting
		want       bool
	}{
		"nothing":                        {justNow, false, []sighting{isUp, isUp}, false},
		"out of service at one":          {justNow, false, []sighting{isUp, at(outOfService, "UNKNOWN", "7", 0)}, true},
		"and nothing was removed":        {never, false, []sighting{isUp, at(outOfService, "UNKNOWN", "7", 0)}, false},
		"and that was long ago":          {long, false, []sighting{isUp, at(outOfService, "UNKNOWN", "7", 0)}, false},
		"and it is to be so":             {justNow, true, []sighting{isUp, at(outOfService, "UNKNOWN", "7", 0)}, false},
		"out of service at all":          {justNow, false, []sighting{at(outOfService, "UNKNOWN", "7", 0), at(outOfService, "UNKNOWN", "7", 0)}, true},
		"down by the app's word":         {justNow, false, []sighting{isUp, at(down, "UNKNOWN", "7", time.Minute)}, false},
		"overridden at one for long":     {justNow, false, []sighting{isUp, at(outOfService, outOfService, "7", 5*time.Second)}, true},
		"overridden at one just now":     {justNow, false, []sighting{isUp, at(outOfService, outOfService, "7", time.Second)}, false},
		"overridden, nobody knows when":  {justNow, false, []sighting{isUp, at(outOfService, outOfService, "7", -1)}, false},
		"overridden at all":              {justNow, false, []sighting{at(outOfService, outOfService, "7", time.Minute), at(outOfService, outOfService, "7", time.Minute)}, false},
		"UP of another registration":     {justNow, false, []sighting{isUp, at(outOfService, outOfService, "6", time.Minute)}, false},
		"overridden at the only server":  {justNow, false, []sighting{at(outOfService, outOfService, "7", time.Minute)}, false},
		"out of service at the only one": {justNow, false, []sighting{at(outOfService, "UNKNOWN", "7", 0)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Registry{withdrawn: test.withdrawn}
			if test.restoredAt != never {
				r.restoredAt = time.Now().Add(-test.restoredAt)
			}
			if got := r.hasResidue(test.of); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// The status is set again by two calls, and the server fails between them. The
// first leaves an override, which must not be taken for one that somebody has
// set.
func TestServerFailsWhileStatusIsSetAnew(t *testing.T) {
	a, r := setAnewByHalf(t)
	registrytest.Find(t, r)
	a.Heartbeat(t)
	if got := a.statusAt(t, a.urls[0]); got != up {
		t.Errorf("the app has said that it is UP, and is %s", got)
	}
}

// Once another drain has been taken back, an override counts as somebody's
// again.
func TestSomebodysWillAfterAServerFailed(t *testing.T) {
	a, r := setAnewByHalf(t)
	registrytest.Call(t, "Deregister", r.Deregister) // so that there is nothing to restore
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.Call(t, "Restore", r.Restore)
	a.registerAs(t, up)
	if code, _ := send(t, http.MethodPut, a.urls[0]+a.path()+"/status?value="+outOfService, nil); code != http.StatusOK {
		t.Fatalf("the override was answered with %d", code)
	}
	if text := registrytest.Find(t, r); !strings.Contains(text, "stays so") {
		t.Errorf("Find says %q", text)
	}
	a.holds(t, outOfService)
}

// setAnewByHalf returns an instance with the override that remains when a
// server fails between the two calls.
func setAnewByHalf(t *testing.T) (*fakeApp, *Registry) {
	t.Helper()
	a := newApp(startServers(t, oneServer), nil)
	var failing atomic.Bool
	r := behindStage(t, a, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if failing.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		forward.ServeHTTP(w, r)
	})
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.Call(t, "Restore", r.Restore)
	a.registerAs(t, down)
	a.registerAs(t, outOfService)
	failing.Store(true)
	defer failing.Store(false)
	if _, err := r.Find(t.Context()); err == nil {
		t.Error("Find says nothing of the failure")
	}
	if got := a.statusAt(t, a.urls[0]); got != down {
		t.Fatalf("it is %s, want the override that could not be removed", got)
	}
	return a, r
}
