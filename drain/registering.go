package drain

import (
	"context"
	"log/slog"
	"time"
)

// registering is what is known of an instance that the sidecar registers, in
// place of an app that has no client of the registry.
type registering struct {
	registrar Registrar // nil: the app registers itself
	every     time.Duration

	known bool // whether the app is ready is known
	ready bool
	// registered is set when a Register of the app's present state has succeeded, and
	// listed when it was that the app is ready.
	registered, listed bool
	tried              bool      // one was called since the pod came back into service
	as                 bool      // the ready of the last Register
	dueAt              time.Time // when the next Register is due
	late               doubt     // Registers that may take effect after a Withdraw
	retry              backoff
}

// registerOurselves has the sidecar register the app, where it shall. What it has
// not registered is then known not to be there.
func (r *registration) registerOurselves() {
	registrar, can := r.Registry.(Registrar)
	if !can || !r.Register {
		return
	}
	r.presence.unknown = false
	r.registering = registering{
		registrar: registrar, every: registrar.RegisterEvery(),
		retry: backoff{first: 200 * time.Millisecond, most: 5 * time.Second},
	}
}

// ours reports whether the sidecar registers the app.
func (g *registering) ours() bool { return g.registrar != nil }

// mayBeThere reports whether the instance is worth looking up: what the sidecar has
// not registered is not there.
func (g *registering) mayBeThere() bool { return !g.ours() || g.registered && g.listed }

// retarget records that the registration has another target. What the app was is
// not what it is after a drain: it may have been restarted.
func (g *registering) retarget() {
	g.known, g.registered, g.tried = false, false, false
	g.dueAt = time.Time{}
	g.retry.reset()
}

// nextOfOursLocked is nextLocked where the sidecar registers the app. In service,
// the registry is told whether the app is ready before anything else: an app that
// is not must not be restored as one that is. In a drain nothing is registered, and
// no lease is renewed, see Registrar.
func (r *registration) nextOfOursLocked(now time.Time) (*call, time.Duration) {
	g := &r.registering
	if r.target != inService {
		return r.nextForTargetLocked(now)
	}
	left := g.dueAt.Sub(now)
	switch {
	case !g.known:
		return nil, forever
	case left <= 0:
		return r.callLocked(opRegister, now), 0
	case !g.tried:
		return nil, left
	}
	c, wait := r.nextForTargetLocked(now)
	return c, sooner(wait, left)
}

// sooner returns the shorter of two waits.
func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b < a {
		return b
	}
	return a
}

// callLocked makes c the call that registers. A Register is finished
// even if a drain begins: one that was cancelled could put the pod back after it
// was withdrawn.
func (g *registering) callLocked(c *call, now time.Time) {
	c.limit = min(c.limit, callLimit)
	ready := g.ready
	g.as, g.tried = ready, true
	if ready {
		g.late.called(now, c.limit)
		c.landedLocked = g.late.answered
	}
	c.mustFinish = true
	c.do = onlyError(func(ctx context.Context) error { return g.registrar.Register(ctx, ready) })
}

// registerDoneLocked records how a Register has ended.
func (r *registration) registerDoneLocked(err error, now time.Time) {
	g := &r.registering
	if err != nil {
		g.dueAt = now.Add(g.retry.wait())
		return
	}
	g.retry.reset()
	g.dueAt = now.Add(g.every)
	switch {
	case g.as != g.ready:
		g.dueAt = now // it has changed meanwhile
		return
	case !g.registered && g.ready:
		slog.Info("registry: registered", "registry", r.Name)
		// An earlier pod's withdrawal may come back with what servers tell each other.
		r.lookup = lookup{found: r.lookup.found, startedAt: now}
	case !g.registered:
		slog.Info("registry: the app is not ready, and not in service", "registry", r.Name)
	}
	g.registered, g.listed = true, g.ready
}

// appReadyLocked records whether the app is ready.
func (r *registration) appReadyLocked(ready bool) {
	g := &r.registering
	if !g.ours() || r.target != inService || g.known && g.ready == ready {
		return
	}
	g.known, g.ready, g.registered = true, ready, false
	g.dueAt = time.Time{}
	g.retry.reset()
	notify(r.worker.changed)
}
