package drain

import (
	"context"
	"time"
)

// appGoneEvery is how often the app is looked at when an instance can only be
// deregistered once it is gone.
const appGoneEvery = 100 * time.Millisecond

// target is where a registry should hold the pod's instance.
type target int

const (
	inService target = iota
	outOfService
	deregistered
)

// The calls to a registry, by the names under which metrics count them.
const (
	opWithdraw   = "withdraw"
	opAsk        = "ask"
	opRestore    = "restore"
	opFind       = "find"
	opDeregister = "deregister"
	opListed     = "listed"
	opRegister   = "register"
	opAppGone    = "" // no call to the registry, and not counted
)

// A registration is the pod's instance in one registry: it is brought to its
// target, with retries, and kept there. It is a task; the Drainer's lock guards
// it.
type registration struct {
	NamedRegistry
	worker  *worker
	journal *journal
	// notifyDriverLocked wakes the driver of the drain: something has changed.
	notifyDriverLocked func()
	// appGone reports, by a look of its own, whether the instance may be
	// deregistered now. It takes the lock.
	appGone func(context.Context) bool
	// appMayRegisterLocked reports whether the app has so far had too little time
	// to register.
	appMayRegisterLocked func(now time.Time) bool
	// listedLocked is called when the registry was seen to list the pod.
	listedLocked func()

	limit    time.Duration   // of one call
	unlisted bool            // see ListReporter
	changes  <-chan struct{} // see ChangeNotifier; nil: none are reported

	target target
	until  time.Time // calls for the target end by then; zero: no limit
	// settled is closed when the target is reached, or another has taken its
	// place.
	settled        chan struct{}
	dueAt          time.Time // no call for the target before then
	mayBeWithdrawn bool      // a Withdraw was called that no Restore has undone
	withdrawals    doubt     // those that may take effect after a Restore

	// For the target outOfService.
	tried         bool      // the first Withdraw of this drain is over
	withdrawnAt   time.Time // the first Withdraw of this drain that succeeded
	withdrawAgain time.Time // when Withdraw is due again
	goneAt        time.Time // since when the instance has been seen gone, or was given up
	gaveUp        string    // why it was given up; empty: it was not
	askedAt       time.Time // when the last question began
	changed       bool      // the registry has reported a change since
	confirmedAt   time.Time // when the last question began whose answer was that it is gone
	confirmFrom   time.Time // an answer to a question from then on is awaited; zero: none is

	// For the target deregistered.
	appIsGone bool // by a look right before this

	presence presence // whether the registry holds the instance at all
	lookup   lookup   // for the target inService
	recovery recovery // for the target inService
	listing  listing  // for the target inService

	registering registering // where the sidecar registers the app

	failures    int    // in this drain
	inARow      int    // the last ones of them, since a success
	unreachable bool   // that was emitted, in this drain
	lastErr     string // of the last call; empty after a success

	retry, ask backoff
}

// setTargetLocked sends the instance to a target. A call for the one before is
// cancelled, but not a Withdraw when the instance goes back into service.
func (r *registration) setTargetLocked(t target, until time.Time) {
	if r.target == outOfService && t == inService {
		r.lookup.found = "" // it is out of date
		r.appStartedLocked()
	}
	if !isClosed(r.settled) {
		close(r.settled) // nobody will bring it there
	}
	r.target, r.until, r.dueAt = t, until, time.Time{}
	r.settled = make(chan struct{})
	if t == inService && !r.mayBeWithdrawn {
		close(r.settled) // there is nothing to undo
	}
	r.retry.reset()
	r.ask.reset()
	if t == outOfService {
		r.tried, r.failures, r.inARow, r.lastErr = false, 0, 0, ""
		r.unreachable = false
		r.withdrawnAt, r.withdrawAgain, r.goneAt = time.Time{}, time.Time{}, time.Time{}
		r.gaveUp = ""
		r.confirmedAt, r.confirmFrom = time.Time{}, time.Time{}
		r.presence.absentAt = time.Time{}
		r.recovery = recovery{}
	}
	r.appIsGone = false
	r.registering.retarget()
	r.worker.retargetLocked()
	if t == deregistered {
		r.worker.cancelLocked() // for good: there is no time to wait for a Withdraw
	}
}

// nextLocked is a task's.
func (r *registration) nextLocked(now time.Time) (*call, time.Duration) {
	if !r.until.IsZero() && !now.Before(r.until) {
		return nil, forever
	}
	if !r.registering.ours() {
		return r.nextForTargetLocked(now)
	}
	return r.nextOfOursLocked(now)
}

// nextForTargetLocked is nextLocked without what registers the app.
func (r *registration) nextForTargetLocked(now time.Time) (*call, time.Duration) {
	switch {
	case now.Before(r.dueAt):
		return nil, r.dueAt.Sub(now)
	}
	switch r.target {
	case outOfService:
		if now.Before(r.withdrawAgain) {
			r.askedAt, r.changed = now, false
			return r.callLocked(opAsk, now), 0
		}
		r.mayBeWithdrawn = true
		r.withdrawals.called(now, r.limit)
		return r.callLocked(opWithdraw, now), 0
	case deregistered:
		switch {
		case isClosed(r.settled):
			return nil, forever
		case r.appIsGone:
			return r.callLocked(opDeregister, now), 0
		}
		return r.callLocked(opAppGone, now), 0
	case inService:
	}
	if r.mayBeWithdrawn {
		return r.callLocked(opRestore, now), 0
	}
	return r.nextInServiceLocked(now)
}

// nextInServiceLocked is nextLocked for an instance that was put back, or was never
// withdrawn: it is looked up, and seen to be listed again.
func (r *registration) nextInServiceLocked(now time.Time) (*call, time.Duration) {
	wait := forever
	isDue := func(at time.Time) bool {
		if left := at.Sub(now); wait < 0 || left < wait {
			wait = max(0, left)
		}
		return !now.Before(at)
	}
	if _, canFind := r.Registry.(Finder); canFind && r.registering.mayBeThere() && !r.lookup.over(now) && isDue(r.lookup.dueAt) {
		return r.callLocked(opFind, now), 0
	}
	if r.recovery.underWay() && isDue(r.recovery.askAt) {
		return r.callLocked(opAsk, now), 0
	}
	if at, open := r.nextListingLocked(now); open && isDue(at) {
		r.listing.askedAt, r.changed = now, false
		return r.callLocked(opListed, now), 0
	}
	return nil, wait
}

// callLocked returns a call to the registry.
func (r *registration) callLocked(op string, now time.Time) *call {
	c := &call{op: op, whom: r.Name + " registry", limit: r.limit}
	if !r.until.IsZero() {
		c.limit = min(c.limit, r.until.Sub(now))
	}
	switch op {
	case opWithdraw:
		c.do, c.mustFinish = onlyError(r.Registry.Withdraw), true
	case opRestore:
		c.do = onlyError(r.Registry.Restore)
	case opDeregister:
		c.do = onlyError(r.Registry.Deregister)
	case opAsk:
		c.do = func(ctx context.Context) (a answer, err error) {
			a.yes, err = r.Registry.Withdrawn(ctx)
			return a, err
		}
	case opFind:
		c.do = func(ctx context.Context) (a answer, err error) {
			if finder, canFind := r.Registry.(Finder); canFind {
				a.text, err = finder.Find(ctx)
			}
			return a, err
		}
	case opListed:
		c.do = r.askListed
	case opRegister:
		r.registering.callLocked(c, now)
	case opAppGone:
		c.do = func(ctx context.Context) (answer, error) { return answer{yes: r.appGone(ctx)}, nil }
		return c
	}
	do := c.do
	c.do = func(ctx context.Context) (answer, error) {
		a, err := do(ctx)
		if l, ok := r.Registry.(Locator); ok {
			a.located, a.says = l.Located(), true
		}
		if g, ok := r.Registry.(GiveUpReporter); ok && err == nil {
			a.gaveUp = clip(g.GaveUp())
		}
		return a, err
	}
	return c
}

// onlyError is a call that answers nothing.
func onlyError(f func(context.Context) error) func(context.Context) (answer, error) {
	return func(ctx context.Context) (answer, error) { return answer{}, f(ctx) }
}

// doneLocked is a task's.
func (r *registration) doneLocked(c *call, a answer, err error, now time.Time) {
	if c.op != opAppGone {
		appeared := r.presenceLocked(c.op, a, err)
		if c.op != opListed { // which says itself what is missing
			r.bookLocked(c.op, err)
		}
		if appeared && c.op == opAsk && r.target == outOfService {
			r.withdrawAgain, r.dueAt = time.Time{}, time.Time{}
			return
		}
	}
	switch c.op {
	case opWithdraw:
		r.withdrawDoneLocked(a, err, now)
	case opAsk:
		if r.target == inService {
			r.recoveryAskDoneLocked(a.yes, err, now)
		} else {
			r.askDoneLocked(a, err, now)
		}
	case opRestore:
		r.restoreDoneLocked(err, now)
	case opFind:
		r.findDoneLocked(a.text, err, now)
	case opDeregister:
		r.deregisterDoneLocked(err, now)
	case opListed:
		r.listedDoneLocked(a, err, now)
	case opRegister:
		r.registerDoneLocked(err, now)
	case opAppGone:
		if r.appIsGone = a.yes; !a.yes {
			r.dueAt = now.Add(appGoneEvery)
		}
	}
}

// forgottenAtLocked is when the registry's clients have forgotten the instance; zero
// while that is not known. They are given the time from the drain's beginning
// for an instance that was never found: its app may be registering.
func (r *registration) forgottenAtLocked() time.Time {
	switch {
	case r.absentLocked():
		return r.journal.beganLocked().Add(r.ClientRefresh)
	case r.goneAt.IsZero():
		return time.Time{}
	}
	return later(r.goneAt, r.registering.late.until).Add(r.ClientRefresh)
}
