package eureka

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// The status of an app that is withdrawn, by what it said before: an override
// must be there, whatever it said, and it must not be taken for UP afterwards.
func TestOverrideOfAnyStatus(t *testing.T) {
	s := startServers(t, oneServer)
	for _, test := range []struct {
		configured, own string
		shown           string // once withdrawn
		restored        string // at once; empty: what the app says at its next heartbeat
	}{
		{outOfService, up, outOfService, up},
		{outOfService, outOfService, down, ""},
		{outOfService, down, down, ""},
		{outOfService, "STARTING", down, ""},
		{down, up, down, up},
		{down, down, outOfService, ""},
		{down, outOfService, outOfService, ""},
		{down, "STARTING", outOfService, ""},
	} {
		t.Run(test.own+" withdrawn by "+test.configured, func(t *testing.T) {
			a := newApp(s, func(a *fakeApp) { a.cfg.Status = test.configured; a.cfg.App, a.cfg.InstanceID = a.app, a.id })
			at := s.URLs[0]
			a.registerAs(t, test.own)
			r := a.registry(t)
			registrytest.Call(t, "Withdraw", r.Withdraw)
			i, _ := a.at(t, at)
			if i["status"] != test.shown || i["overriddenStatus"] != test.shown {
				t.Fatalf("withdrawn, it is %v, overridden by %v; want %s for both", i["status"], i["overriddenStatus"], test.shown)
			}
			registrytest.Call(t, "a second Withdraw", r.Withdraw)
			if got := a.statusAt(t, at); got != test.shown {
				t.Fatalf("a second Withdraw made it %s, want %s", got, test.shown)
			}

			registrytest.Call(t, "Restore", r.Restore)
			want := test.restored
			if want == "" {
				if got := a.statusAt(t, at); got != "UNKNOWN" {
					t.Fatalf("restored, it is %s; want UNKNOWN until the app has said what it is", got)
				}
				if code, _ := send(t, "PUT", at+a.path()+"?status="+test.own, nil); code != 404 {
					t.Fatalf("the heartbeat after Restore was answered with %d, want 404, which makes the app register", code)
				}
				a.registerAs(t, test.own)
				want = test.own
			}
			if got := a.statusAt(t, at); got != want {
				t.Fatalf("restored, it is %s, want %s", got, want)
			}
		})
	}
}

// What an app says of itself while it is withdrawn, as Spring's health checks
// do, must not put it back into service.
func TestAppSaysDownAndUpWhileWithdrawn(t *testing.T) {
	s := startServers(t, oneServer)
	for _, before := range []string{up, down, outOfService, "STARTING"} {
		t.Run("from "+before, func(t *testing.T) {
			a := newApp(s, nil)
			a.registerAs(t, before)
			r := a.registry(t)
			wait.Until(t, "Find", func() bool { _, err := r.Find(t.Context()); return err == nil })
			registrytest.Call(t, "Withdraw", r.Withdraw)
			for _, says := range []string{down, up, "STARTING", outOfService, up} {
				a.registerAs(t, says)
				if got := a.statusAt(t, s.URLs[0]); got == up {
					t.Fatalf("it said %s, and is UP again", says)
				}
				a.Heartbeat(t)
				if got := a.statusAt(t, s.URLs[0]); got == up {
					t.Fatalf("it said %s, and is UP again after a heartbeat", says)
				}
			}
			registrytest.UntilWithdrawn(t, r)
		})
	}
}

// An app that says DOWN behind the override is not made UP by Restore.
func TestRestoreMakesNothingUpThatIsDown(t *testing.T) {
	s := startServers(t, oneServer)
	for _, configured := range []string{outOfService, down} {
		a := newApp(s, func(a *fakeApp) { a.cfg.Status = configured; a.cfg.App, a.cfg.InstanceID = a.app, a.id })
		a.registerAs(t, up)
		r := a.registry(t)
		registrytest.Call(t, "Withdraw", r.Withdraw)
		a.registerAs(t, down)
		registrytest.Call(t, "Restore", a.registry(t).Restore) // by a sidecar that remembers nothing
		if got := a.statusAt(t, s.URLs[0]); got == up {
			t.Errorf("with %s: an app that says DOWN was made UP", configured)
		}

		// And where there is nothing to restore, nothing is changed.
		b := newApp(s, func(b *fakeApp) { b.cfg.App, b.cfg.InstanceID = b.app, b.id })
		b.registerAs(t, "STARTING")
		registrytest.Call(t, "Restore", b.registry(t).Restore)
		if got := b.statusAt(t, s.URLs[0]); got != "STARTING" {
			t.Errorf("Restore of what is not withdrawn made it %s", got)
		}
	}
}

// A drain that begins before the app has come up is not undone by the Find
// that follows the app's registration.
func TestFindKeepsOwnWithdrawal(t *testing.T) {
	s := startServers(t, oneServer)
	a := newApp(s, func(a *fakeApp) { a.cfg.InstanceID = a.id })
	a.registerAs(t, "STARTING")
	r := a.registry(t)
	registrytest.Call(t, "Withdraw", r.Withdraw)
	a.Register(t) // it is up now; the override is older than this registration
	if text := registrytest.Find(t, r); !strings.Contains(text, "stays so") {
		t.Errorf("Find says %q", text)
	}
	if got := a.statusAt(t, s.URLs[0]); got == up {
		t.Fatal("Find undid the withdrawal of the drain that is under way")
	}
	registrytest.Call(t, "Restore", r.Restore)
	a.Heartbeat(t)
	wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
}

// Ids are escaped, whatever is in them.
func TestOddIDs(t *testing.T) {
	t.Parallel()
	s := startServers(t, twoServers)
	type odd struct {
		*fakeApp
		r *Registry
	}
	var all []odd
	for _, id := range []string{
		"host:app:8080", "100%", "%2F", "a b", " a ", "a+b", "a;b=c", "a?b", "a#b", "a&b=c", "ä-日本", "a|b", "[::1]:8080", `"quoted"`, "<a>", "a,b", "~!@$^*()'",
	} {
		for _, byID := range []bool{false, true} {
			a := newApp(s, func(a *fakeApp) {
				a.id = id + a.app
				if byID {
					a.cfg.InstanceID = a.id
				}
			})
			all = append(all, odd{a, a.registry(t)})
		}
	}
	for _, a := range all {
		a.post(t, up)
	}
	for _, a := range all {
		wait.Until(t, "Find of "+a.id, func() bool { _, err := a.r.Find(t.Context()); return err == nil })
	}
	all[0].Settle(t)
	for _, a := range all {
		registrytest.Call(t, "Withdraw of "+a.id, a.r.Withdraw)
	}
	for _, a := range all {
		registrytest.UntilWithdrawn(t, a.r)
		a.holds(t, outOfService)
	}
	all[0].Settle(t)
	for _, a := range all {
		registrytest.Call(t, "Restore of "+a.id, a.r.Restore)
		if got := a.statusAt(t, s.URLs[0]); got != up {
			t.Errorf("%s: restored, it is %s", a.id, got)
		}
	}
	var leaving sync.WaitGroup
	for _, a := range all {
		leaving.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := a.r.Deregister(ctx); err != nil {
				t.Errorf("Deregister of %s: %v", a.id, err)
			}
		})
	}
	leaving.Wait()
	for _, a := range all {
		if a.Known(t) {
			t.Errorf("%s: deregistered, it is still known", a.id)
		}
	}
}

// Tomcat takes no slash in a path, however it is encoded: that is said.
func TestSlashInID(t *testing.T) {
	s := startServers(t, oneServer)
	for _, byID := range []bool{false, true} {
		a := newApp(s, func(a *fakeApp) {
			a.id = "team/" + a.app
			if byID {
				a.cfg.App, a.cfg.InstanceID = a.app, a.id
			}
		})
		a.Register(t)
		wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
		r := a.registry(t)
		_, seen := r.Withdrawn(t.Context())
		for _, err := range []error{r.Withdraw(t.Context()), seen} {
			if err == nil || !strings.Contains(err.Error(), "slash") || !strings.Contains(err.Error(), a.id) {
				t.Errorf("got %v, want an error that names the id and the slash", err)
			}
		}
	}
}

// Servers put applications into upper case; so may be what is configured.
func TestLowerCaseApp(t *testing.T) {
	s := startServers(t, oneServer)
	for _, byID := range []bool{false, true} {
		a := newApp(s, func(a *fakeApp) { a.cfg.App = strings.ToLower(a.app) })
		if byID {
			a.cfg.InstanceID = a.id
		}
		a.Register(t)
		r := a.registry(t)
		wait.Until(t, "Find", func() bool { _, err := r.Find(t.Context()); return err == nil })
		registrytest.Call(t, "Withdraw", r.Withdraw)
		registrytest.UntilWithdrawn(t, r)
		if a.Listed(t) {
			t.Error("it is still listed")
		}
	}
}

// All entries that lead clients to the pod are withdrawn: an app that takes a
// new id with each restart leaves old ones behind.
func TestSeveralNamesAtOneAddress(t *testing.T) {
	t.Parallel()
	s := startServers(t, oneServer)
	first := newApp(s, nil)
	second := newApp(s, func(a *fakeApp) { a.pod = first.pod })
	r := first.registry(t)
	first.Register(t)
	wait.Until(t, "Find", func() bool { _, err := r.Find(t.Context()); return err == nil })
	second.Register(t)
	wait.Until(t, "the second being listed", func() bool { return second.Listed(t) })
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.UntilWithdrawn(t, r)
	if first.Listed(t) || second.Listed(t) {
		t.Error("Withdrawn says true while clients are led to the pod's address")
	}
	registrytest.Call(t, "Deregister", r.Deregister)
	if first.Known(t) || second.Known(t) {
		t.Error("an entry for the pod's address was left behind")
	}
}

// What Find says when it finds nothing names what is there and what to set.
func TestFindSaysWhatToSet(t *testing.T) {
	s := startServers(t, oneServer)
	a := newApp(s, nil)
	a.Register(t)
	wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
	for _, test := range []struct {
		name   string
		change func(*fakeApp)
		want   []string
	}{
		{"another port", func(b *fakeApp) { b.pod.IP, b.pod.AppPort = a.pod.IP, 9 }, []string{a.id, a.pod.IP + ":9", "LASTCALL_APP_PORT", "LASTCALL_EUREKA_INSTANCE_ID"}},
		{"another id", func(b *fakeApp) { b.cfg.App, b.cfg.InstanceID = a.app, "typo" }, []string{a.id, `"typo"`, "LASTCALL_EUREKA_INSTANCE_ID"}},
		{"another application", func(b *fakeApp) { b.cfg.App, b.cfg.InstanceID = "TYPO", a.id }, []string{"TYPO", "LASTCALL_EUREKA_APP"}},
		{"a wrong path", func(b *fakeApp) { b.cfg.URLs = []string{strings.TrimSuffix(s.URLs[0], "/eureka")} }, []string{"no Eureka server at this path", "/eureka"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newApp(s, test.change).registry(t).Find(t.Context())
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Find says %v, want it to name %s", err, want)
				}
			}
		})
	}
	if text, want := registrytest.Find(t, a.registry(t)), a.app+"/"+a.id+" is UP at 1 of 1 servers"; text != want {
		t.Errorf("Find says %q, want %q", text, want)
	}
}

// With a wrong path everything is 404, which is not "not registered".
func TestWrongPathIsNoSuccess(t *testing.T) {
	s := startServers(t, oneServer)
	for _, byID := range []bool{false, true} {
		a := newApp(s, func(a *fakeApp) {
			a.cfg.URLs = []string{s.URLs[0] + "/wrong"}
			if byID {
				a.cfg.App, a.cfg.InstanceID = a.app, a.id
			}
		})
		r := a.registry(t)
		ctx := t.Context()
		gone, seen := r.Withdrawn(ctx)
		if gone {
			t.Error("Withdrawn says true where there is no Eureka")
		}
		for _, err := range []error{r.Withdraw(ctx), seen, r.Restore(ctx), r.Deregister(ctx)} {
			if !errors.Is(err, errNotEureka) {
				t.Errorf("got %v, want an error that says that there is no Eureka", err)
			}
		}
	}
}
