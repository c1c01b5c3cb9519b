package registrytest

import (
	"context"
	"errors"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// listedFollowsClients checks that a registry that reports whether it lists the
// instance (drain.Lister) never does so before clients discover the instance.
func listedFollowsClients(t *testing.T, h Harness) {
	r := h.Registry(t)
	l, says := r.(drain.Lister)
	if !says {
		return
	}
	isListed := func(l drain.Lister) bool {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		defer cancel()
		listed, why, err := l.Listed(ctx)
		if err != nil {
			t.Fatalf("Listed: %v", err)
		}
		if listed && !h.Listed(t) {
			t.Fatal("Listed returns true, but a client does not get the instance")
		}
		if !listed && why == "" {
			t.Fatal("Listed returns false without a reason")
		}
		return listed
	}
	if isListed(l) {
		t.Fatal("Listed returns true for an instance that nobody registered")
	}
	registerListed(t, h)
	h.Settle(t)
	wait.Until(t, "Listed", func() bool { return isListed(l) })
	wait.Until(t, "Listed of a new registry", func() bool {
		next, says := h.Registry(t).(drain.Lister)
		return says && isListed(next)
	})
	withdrawAndSee(t, r)
	if isListed(l) {
		t.Fatal("Listed returns true for an instance that is withdrawn")
	}
	h.Settle(t)
	Call(t, "Restore", r.Restore)
	h.Heartbeat(t)
	wait.Until(t, "Listed after Restore", func() bool { return isListed(l) })
	Call(t, "Withdraw", r.Withdraw)
	UntilWithdrawn(t, r)
	Call(t, "Deregister", r.Deregister)
	wait.Until(t, "the instance being forgotten", func() bool { return !h.Known(t) })
	if isListed(l) {
		t.Fatal("Listed returns true for a deregistered instance")
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if listed, _, err := l.Listed(ctx); listed || !errors.Is(err, context.Canceled) {
		t.Errorf("Listed with an ended context: got %v, %v, want an error that is context.Canceled", listed, err)
	}
}

// readyWhenListed checks that a pod that waits for its registry
// (Config.ReadyWhenListed) is ready when clients discover it, and not before.
func readyWhenListed(t *testing.T, h Harness) {
	registry := drain.NamedRegistry{Name: "registry", Registry: h.Registry(t)}
	d := drain.New(drain.Config{
		GracePeriod: 5 * time.Second, Registries: []drain.NamedRegistry{registry},
		ReadyWhenListed: true, ListedWithin: time.Hour,
	})
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		end()
		if err := <-ended; err == nil {
			t.Error("Run returns no error, and its context has ended while the pod serves")
		}
	}()
	wait.Until(t, "the registry being asked", func() bool {
		s := d.Status(ctx)
		return s.Registries[0].Error != ""
	})
	if ready, why := d.Readiness(); ready || why == "" {
		t.Fatalf("ready before anything is registered: %q", why)
	}
	h.Register(t)
	wait.Until(t, "the pod being ready", func() bool {
		h.Heartbeat(t)
		ready, why := d.Readiness()
		if ready && !h.Listed(t) {
			t.Fatal("ready, but a client does not get the instance")
		}
		if !ready {
			t.Log(why)
		}
		return ready
	})
}
