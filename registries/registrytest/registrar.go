package registrytest

import (
	"context"
	"errors"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// RegistrarHarness is what the suite of registrars needs of one real server.
// Its methods fail the test themselves if they cannot reach the server.
type RegistrarHarness interface {
	// Listed, Settle and Known are the same as in Harness.
	Listed(t *testing.T) bool
	Settle(t *testing.T)
	Known(t *testing.T) bool
	// Lose removes the instance without the plug-in, as a restart of the
	// registry does.
	Lose(t *testing.T)
	// Registry returns a new plug-in at each call, configured to register the
	// instance.
	Registry(t *testing.T) drain.Registry
	// Next returns the same for another pod that has the same id.
	Next(t *testing.T) drain.Registry
}

// RunRegistrar runs the suite of registries that register the app themselves.
// start is called once for each test and gives it an instance that no other test
// knows.
func RunRegistrar(t *testing.T, start func(t *testing.T) RegistrarHarness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, RegistrarHarness)
	}{
		{"an app that is ready is registered, renewed and deregistered", registersReady},
		{"an app that is not ready is not in service", registersNotReady},
		{"what the registry has lost is registered again", registersWhatIsLost},
		{"an instance that was lost in a drain is in service after it", withdrawalOutlivesTheInstance},
		{"a withdrawal is undone, with what the app is by then", withdrawalIsUndone},
		{"a registration does not undo its own pod's withdrawal", registrationLeavesWithdrawal},
		{"the next pod of an id is in service", nextPodIsInService},
		{"an ended context ends registering", endedContextRegisters},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, start(t)) })
	}
}

func registersReady(t *testing.T, h RegistrarHarness) {
	r := h.Registry(t)
	register(t, r, false)
	if h.Known(t) {
		t.Fatal("an app that was never ready is registered")
	}
	registerAndSee(t, h, r)
	for range 3 {
		register(t, r, true)
	}
	if !h.Listed(t) {
		t.Fatal("a renewal took the instance from clients")
	}
	withdrawAndSee(t, r)
	Call(t, "Deregister", r.Deregister)
	h.Settle(t) // changes that servers still had to replicate,
	h.Settle(t) // and their consequences
	wait.Until(t, "the instance being forgotten", func() bool { return !h.Known(t) })
}

func registersNotReady(t *testing.T, h RegistrarHarness) {
	r := h.Registry(t)
	registerAndSee(t, h, r)
	for range 2 {
		register(t, r, false)
		wait.Until(t, "the instance not being listed", func() bool { return !h.Listed(t) })
	}
	// The sidecar is restarted, and the app is still not ready.
	r = h.Registry(t)
	register(t, r, false)
	if h.Listed(t) {
		t.Fatal("listed, and the app is not ready")
	}
	registerAndSee(t, h, r)
	register(t, h.Registry(t), false)
	wait.Until(t, "the instance not being listed, by a new registry", func() bool { return !h.Listed(t) })
}

func registersWhatIsLost(t *testing.T, h RegistrarHarness) {
	r := h.Registry(t)
	registerAndSee(t, h, r)
	h.Settle(t)
	h.Lose(t)
	wait.Until(t, "the instance being lost", func() bool { return !h.Known(t) })
	register(t, r, false)
	if h.Known(t) {
		t.Fatal("an app that is not ready is registered again")
	}
	registerAndSee(t, h, r)
}

func withdrawalOutlivesTheInstance(t *testing.T, h RegistrarHarness) {
	r := h.Registry(t)
	registerAndSee(t, h, r)
	withdrawAndSee(t, r)
	h.Settle(t)
	// In a drain nobody renews the lease.
	h.Lose(t)
	wait.Until(t, "the instance being lost", func() bool { return !h.Known(t) })
	withdrawAndSee(t, r)
	if h.Known(t) || h.Listed(t) {
		t.Fatal("a withdrawal has registered the instance")
	}
	// The drain is taken back.
	register(t, r, true)
	Call(t, "Restore", r.Restore)
	registerAndSee(t, h, r)
}

func withdrawalIsUndone(t *testing.T, h RegistrarHarness) {
	r := h.Registry(t)
	registerAndSee(t, h, r)
	withdrawAndSee(t, r)
	h.Settle(t)
	// A drain that is taken back does the same.
	register(t, r, true)
	Call(t, "Restore", r.Restore)
	wait.Until(t, "the instance being listed again", func() bool { return h.Listed(t) })
	withdrawAndSee(t, r)
	h.Settle(t)
	register(t, r, false)
	Call(t, "Restore", r.Restore)
	if h.Listed(t) {
		t.Fatal("restored as one that is ready, and the app is not")
	}
	registerAndSee(t, h, r)
}

func registrationLeavesWithdrawal(t *testing.T, h RegistrarHarness) {
	registerAndSee(t, h, h.Registry(t))
	withdrawAndSee(t, h.Registry(t))
	// The sidecar was killed in the drain and restarted.
	r := h.Registry(t)
	register(t, r, true)
	if h.Listed(t) {
		t.Fatal("a restarted sidecar has put a draining pod back into service")
	}
	// The app was restarted, so there is no drain any more.
	register(t, r, false)
	h.Settle(t)
	registerAndSee(t, h, r)
}

func nextPodIsInService(t *testing.T, h RegistrarHarness) {
	registerAndSee(t, h, h.Registry(t))
	withdrawAndSee(t, h.Registry(t))
	h.Settle(t)
	// The drain was cut short, and a new pod starts with the same id.
	registerAndSee(t, h, h.Next(t))
}

func endedContextRegisters(t *testing.T, h RegistrarHarness) {
	r := registrar(t, h.Registry(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"Register": r.Register(ctx, true), "Register not ready": r.Register(ctx, false),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: got %v, want an error that is context.Canceled", name, err)
		}
	}
	if h.Known(t) {
		t.Error("a call with an ended context has registered the instance")
	}
}

func registrar(t *testing.T, r drain.Registry) drain.Registrar {
	t.Helper()
	registers, ok := r.(drain.Registrar)
	if !ok {
		t.Fatalf("%T cannot register: it lacks Register", r)
	}
	return registers
}

func register(t *testing.T, r drain.Registry, ready bool) {
	t.Helper()
	Call(t, "Register", func(ctx context.Context) error { return registrar(t, r).Register(ctx, ready) })
}

// registerAndSee calls Register until the instance is listed, as a drainer does
// over time.
func registerAndSee(t *testing.T, h RegistrarHarness, r drain.Registry) {
	t.Helper()
	wait.Until(t, "the registered instance being listed", func() bool {
		register(t, r, true)
		return h.Listed(t)
	})
}
