package eureka

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// One of two peers dies, freezes and comes back.
func TestOneOfTwoPeers(t *testing.T) {
	t.Parallel()
	servers.NeedEureka(t)
	s, err := servers.StartEureka(servers.EurekaOptions{Peers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	registered := func(t *testing.T) *fakeApp {
		a := newApp(s, nil)
		a.Register(t)
		wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
		return a
	}

	// A peer that has copied the registry from another says ADDED of an override
	// that is newer than the app's registration: Find must leave it.
	t.Run("started again", func(t *testing.T) {
		a := newApp(s, nil)
		a.Register(t)
		r := a.registry(t)
		wait.Until(t, "Find", func() bool { _, err := r.Find(t.Context()); return err == nil })
		registrytest.Call(t, "Withdraw", r.Withdraw)
		registrytest.UntilWithdrawn(t, r)
		s.Kill(1)
		s.Restart(t, 1)
		a.replicated(t, s.URLs[1])
		if i, _ := a.at(t, s.URLs[1]); i["overriddenStatus"] != outOfService || i["actionType"] != "ADDED" {
			t.Fatalf("the server that was started again holds %v: this test rests on an override that it has copied", i)
		}
		registrytest.Find(t, a.registry(t)) // by a sidecar that remembers nothing
		a.holds(t, outOfService)
	})

	t.Run("frozen", func(t *testing.T) {
		a := registered(t)
		r := a.registry(t)
		registrytest.Find(t, r)
		s.Freeze(t, 1)
		thaw := func() { s.Thaw(t, 1) }
		defer func() { thaw() }()
		short := func(f func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return f(ctx)
		}
		err := short(r.Withdraw)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), s.URLs[1]) || strings.Contains(err.Error(), s.URLs[0]+":") {
			t.Errorf("Withdraw: got %v, want the deadline at %s", err, s.URLs[1])
		}
		if got := a.statusAt(t, s.URLs[0]); got != outOfService {
			t.Errorf("it is %s at the peer that answers, want OUT_OF_SERVICE", got)
		}
		// What the frozen server's clients read is not known.
		err = short(func(ctx context.Context) error {
			gone, err := r.Withdrawn(ctx)
			if gone {
				t.Error("Withdrawn returns true while one peer does not answer")
			}
			if err == nil { // the other server's answers are not renewed yet
				<-ctx.Done()
				err = ctx.Err()
			}
			return err
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Withdrawn: got %v, want the deadline", err)
		}
		thaw()
		thaw = func() {}
		registrytest.Call(t, "Withdraw once it answers", r.Withdraw)
		registrytest.UntilWithdrawn(t, r)
		if a.Listed(t) {
			t.Error("Withdrawn returns true, but a client still gets the instance")
		}
	})

	t.Run("dead", func(t *testing.T) {
		a, b := registered(t), registered(t)
		r := a.registry(t)
		s.Kill(1)
		a.urls, b.urls = s.URLs[:1], s.URLs[:1]
		if text := registrytest.Find(t, r); !strings.Contains(text, "is UP at 1 of 2 servers") {
			t.Errorf("Find says %q", text)
		}
		// A server that is down is left out if another one answers.
		other := b.registry(t)
		wait.Until(t, "Listed", func() bool { listed, _ := isListed(t, other); return listed })
		registrytest.Call(t, "Withdraw", r.Withdraw)
		registrytest.UntilWithdrawn(t, r)
		if a.Listed(t) {
			t.Error("Withdrawn returns true, but a client still gets the instance")
		}

		// It comes back, and gets the instance with the withdrawal from the
		// other server.
		s.Restart(t, 1)
		a.urls, b.urls = s.URLs, s.URLs
		a.replicated(t, s.URLs[1])
		if got := a.statusAt(t, s.URLs[1]); got != outOfService {
			t.Errorf("at the peer that came back it is %s, want OUT_OF_SERVICE", got)
		}
		registrytest.UntilWithdrawn(t, r)

		// If the app contacts it first, the plug-in notices, and withdraws
		// again.
		if code, _ := send(t, "DELETE", s.URLs[1]+a.path()+"/status?value=UP", nil); code != 200 {
			t.Fatalf("removing the override: status %d", code)
		}
		if registrytest.Withdrawn(t, r) {
			t.Error("Withdrawn returns true although a peer holds the instance as UP")
		}
		registrytest.Call(t, "Withdraw again", r.Withdraw)
		registrytest.UntilWithdrawn(t, r)

		a.Settle(t)
		s.Kill(0)
		registrytest.Call(t, "Restore at the one that is left", r.Restore)
		if got := a.statusAt(t, s.URLs[1]); got != up {
			t.Errorf("restored, it is %s", got)
		}
		registrytest.Call(t, "Deregister at the one that is left", r.Deregister)
		if a.urls = s.URLs[1:]; a.Known(t) {
			t.Error("deregistered, it is still known")
		}
		s.Kill(1)
		if listed, _, err := other.Listed(t.Context()); listed || err == nil {
			t.Errorf("with no server: Listed returns %v, %v", listed, err)
		}
		for name, f := range map[string]func(context.Context) error{
			"Withdraw": r.Withdraw, "Restore": r.Restore, "Deregister": r.Deregister,
			"Withdrawn": func(ctx context.Context) error { _, err := r.Withdrawn(ctx); return err },
			"Find":      func(ctx context.Context) error { _, err := r.Find(ctx); return err },
		} {
			if err := f(t.Context()); err == nil || !strings.Contains(err.Error(), s.URLs[0]) || !strings.Contains(err.Error(), s.URLs[1]) {
				t.Errorf("%s with both dead: got %v, want an error that names both", name, err)
			}
		}
	})
}
