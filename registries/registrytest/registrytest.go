// Package registrytest contains the suite that every registry plug-in passes
// against its real server.
package registrytest

import (
	"context"
	"errors"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// Harness is what the suite needs of one real server. Its methods fail the test
// themselves if they cannot reach the server.
type Harness interface {
	// Register registers the pod's instance as its app does, as available.
	Register(t *testing.T)
	// Heartbeat sends, once, what the app sends regularly while it runs.
	Heartbeat(t *testing.T)
	// Listed reports whether a client that queries the server now, with the
	// calls that real clients use, gets the instance as available.
	Listed(t *testing.T) bool
	// Settle waits until servers have replicated all changes so far to each
	// other. Between a withdrawal and its undoing, more time passes in a pod's
	// life than in a test.
	Settle(t *testing.T)
	// Known reports whether the server holds the instance at all.
	Known(t *testing.T) bool
	// Registry returns a new plug-in at each call, configured for the instance.
	Registry(t *testing.T) drain.Registry
}

// callLimit is the deadline of one call to the plug-in, as a drainer sets it.
const callLimit = 10 * time.Second

// Run runs the suite. It calls start once for each test. start returns an
// instance that no other test knows and that is not registered yet.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"withdraw takes the instance from clients and keeps it known", withdrawKeepsKnown},
		{"a withdrawal outlives heartbeats", withdrawOutlivesHeartbeats},
		{"restore gives the instance back", restoreGivesBack},
		{"deregister removes the instance", deregisterRemoves},
		{"every call can be repeated", callsRepeat},
		{"a registry made again goes on", newRegistryGoesOn},
		{"find tells what is there", findTells},
		{"find leaves a withdrawal of this registration", findLeavesOwn},
		{"find clears what an earlier pod left", findClearsLeftover},
		{"an instance that is not known is withdrawn", unknownIsWithdrawn},
		{"listed follows what clients are told", listedFollowsClients},
		{"a pod is ready when it is listed", readyWhenListed},
		{"an ended context ends every call", endedContext},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, start(t)) })
	}
}

func withdrawKeepsKnown(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	if gone := Withdrawn(t, r); gone {
		t.Fatal("Withdrawn returns true while clients get the instance")
	}
	Call(t, "Withdraw", r.Withdraw)
	UntilWithdrawn(t, r)
	if h.Listed(t) {
		t.Fatal("Withdrawn returns true, but a client still gets the instance")
	}
	if !h.Known(t) {
		t.Fatal("Withdraw removed the instance: its app's next heartbeat would bring it back")
	}
}

func withdrawOutlivesHeartbeats(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	withdrawAndSee(t, r)
	for range 3 {
		h.Heartbeat(t)
	}
	if !Withdrawn(t, r) || h.Listed(t) {
		t.Fatal("the app's heartbeat put the instance back into service")
	}
}

func restoreGivesBack(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	withdrawAndSee(t, r)
	h.Settle(t)
	Call(t, "Restore", r.Restore)
	h.Heartbeat(t)
	wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
	wait.Until(t, "Withdrawn saying false", func() bool { return !Withdrawn(t, r) })
}

func deregisterRemoves(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	withdrawAndSee(t, r)
	Call(t, "Deregister", r.Deregister)
	wait.Until(t, "the instance being forgotten", func() bool { return !h.Known(t) })
	if !Withdrawn(t, r) {
		t.Fatal("Withdrawn returns false for a deregistered instance")
	}
	// The same id comes back, as in a StatefulSet: it must be in service.
	registerListed(t, h)
}

func callsRepeat(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	Call(t, "Restore of an instance in service", r.Restore)
	Call(t, "Withdraw", r.Withdraw)
	Call(t, "a second Withdraw", r.Withdraw)
	UntilWithdrawn(t, r)
	h.Settle(t)
	Call(t, "Restore", r.Restore)
	Call(t, "a second Restore", r.Restore)
	wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
	h.Settle(t)
	Call(t, "Withdraw after Restore", r.Withdraw)
	Call(t, "Deregister", r.Deregister)
	Call(t, "a second Deregister", r.Deregister)
	wait.Until(t, "the instance being forgotten", func() bool { return !h.Known(t) })
}

func newRegistryGoesOn(t *testing.T, h Harness) {
	registerListed(t, h)
	withdrawAndSee(t, h.Registry(t))
	// The sidecar was killed and restarted, and remembers nothing.
	r := h.Registry(t)
	if !Withdrawn(t, r) {
		t.Fatal("a new registry does not see the withdrawal")
	}
	h.Settle(t)
	Call(t, "Restore", r.Restore)
	wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
}

func findTells(t *testing.T, h Harness) {
	f := finder(t, h.Registry(t))
	find := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		defer cancel()
		return f.Find(ctx)
	}
	found, err := find()
	if err == nil {
		t.Fatalf("Find found %q before anything was registered", found)
	}
	if _, says := f.(drain.Locator); says {
		if notFound := (*drain.NotFoundError)(nil); !errors.As(err, &notFound) {
			t.Fatalf("Find before any registration: got %v, want a NotFoundError", err)
		}
	}
	located(t, f, false)
	registerListed(t, h)
	wait.Until(t, "Find", func() bool {
		found, err := find()
		return err == nil && found != ""
	})
	located(t, f, true)
}

// located checks the result of Located if r is a drain.Locator: whether it has
// ever found the instance.
func located(t *testing.T, r any, want bool) {
	t.Helper()
	if l, says := r.(drain.Locator); says && l.Located() != want {
		t.Fatalf("Located returns %v, want %v", !want, want)
	}
}

func findLeavesOwn(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	withdrawAndSee(t, r)
	Call(t, "Find", func(ctx context.Context) error {
		_, err := finder(t, h.Registry(t)).Find(ctx)
		return err
	})
	h.Heartbeat(t)
	if !Withdrawn(t, r) || h.Listed(t) {
		t.Fatal("Find undid a withdrawal that is newer than the registration")
	}
}

func findClearsLeftover(t *testing.T, h Harness) {
	registerListed(t, h)
	withdrawAndSee(t, h.Registry(t))
	// The drain was cut short, and a new pod starts with the same id.
	h.Register(t)
	r := h.Registry(t)
	wait.Until(t, "Find", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		defer cancel()
		_, err := finder(t, r).Find(ctx)
		return err == nil
	})
	h.Heartbeat(t)
	wait.Until(t, "the instance being in service", func() bool { return h.Listed(t) })
}

func unknownIsWithdrawn(t *testing.T, h Harness) {
	r := h.Registry(t)
	if !Withdrawn(t, r) {
		t.Fatal("Withdrawn returns false for an instance that nobody registered")
	}
	Call(t, "Withdraw of an unknown instance", r.Withdraw)
	Call(t, "Restore of an unknown instance", r.Restore)
	Call(t, "Deregister of an unknown instance", r.Deregister)
	located(t, r, false)
	// Once any call has found the instance, it stays located.
	registerListed(t, h)
	Call(t, "Withdraw", r.Withdraw)
	UntilWithdrawn(t, r)
	located(t, r, true)
	Call(t, "Deregister", r.Deregister)
	located(t, r, true)
}

func endedContext(t *testing.T, h Harness) {
	registerListed(t, h)
	r := h.Registry(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, seen := r.Withdrawn(ctx)
	for name, err := range map[string]error{
		"Withdraw":   r.Withdraw(ctx),
		"Withdrawn":  seen,
		"Restore":    r.Restore(ctx),
		"Deregister": r.Deregister(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: got %v, want an error that is context.Canceled", name, err)
		}
	}
	if !h.Listed(t) {
		t.Error("a call with an ended context took the instance out of service")
	}
}

func registerListed(t *testing.T, h Harness) {
	t.Helper()
	h.Register(t)
	wait.Until(t, "the registered instance being listed", func() bool { return h.Listed(t) })
}

func withdrawAndSee(t *testing.T, r drain.Registry) {
	t.Helper()
	Call(t, "Withdraw", r.Withdraw)
	UntilWithdrawn(t, r)
}

func finder(t *testing.T, r drain.Registry) drain.Finder {
	t.Helper()
	f, ok := r.(drain.Finder)
	if !ok {
		t.Fatalf("%T cannot look its instance up: it lacks Find", r)
	}
	return f
}

// Call makes one call to a plug-in, with the deadline that a drainer sets. The
// call must succeed.
func Call(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Withdrawn calls Withdrawn, which reports whether clients no longer discover
// the instance. The call must succeed.
func Withdrawn(t *testing.T, r drain.Registry) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	gone, err := r.Withdrawn(ctx)
	if err != nil {
		t.Fatalf("Withdrawn: %v", err)
	}
	return gone
}

// UntilWithdrawn waits until Withdrawn returns true. Like a drain, it withdraws again
// every 5 s meanwhile: a server may keep an answer that it was computing when the
// withdrawal came. Eureka's keeps it for three minutes, or until the next change.
func UntilWithdrawn(t *testing.T, r drain.Registry) {
	t.Helper()
	const every = 5 * time.Second
	began := time.Now()
	wait.Until(t, "Withdrawn", func() bool {
		if Withdrawn(t, r) {
			return true
		}
		if time.Since(began) >= every {
			began = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), callLimit)
			defer cancel()
			if err := r.Withdraw(ctx); err != nil {
				t.Logf("withdrawing again: %v", err)
			}
		}
		return false
	})
}

// Find makes a registry look for the instance, which it must find.
func Find(t *testing.T, f drain.Finder) (text string) {
	t.Helper()
	Call(t, "Find", func(ctx context.Context) (err error) {
		text, err = f.Find(ctx)
		return err
	})
	return text
}
