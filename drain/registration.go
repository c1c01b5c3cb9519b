package drain

import (
	"context"
	"log/slog"
	"time"
)

const (
	// watchEvery is how often a registry that has dropped the instance is
	// asked whether that is still so: an app's client can register it again.
	watchEvery = time.Second
	// askAtLeastEvery is how often a registry that still lists the instance is
	// asked whether it does, at least: half of it is lost on average when its
	// cache turns over.
	askAtLeastEvery = 250 * time.Millisecond
	// withdrawAgainEvery is how often a registry that still lists the instance
	// is told again to withdraw it: it may have forgotten.
	withdrawAgainEvery = 5 * time.Second
	// appGoneEvery is how often it is looked whether the app is gone when an
	// instance waits for that to be deregistered.
	appGoneEvery = 100 * time.Millisecond
	// unreachableAfter is how many calls in a row must fail before people are
	// told: one that fails once is of no interest to them.
	unreachableAfter = 2
)

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
	opAppGone    = "" // no call to the registry, and not counted
)

// A registration is the pod's instance in one registry: it is brought to its
// target, with retries, and kept there. It is a task; the Drainer's lock guards
// it.
type registration struct {
	NamedRegistry
	worker  *worker
	journal *journal
	// notifyDriver tells the driver of the drain that something has changed.
	notifyDriver func()
	// appGone reports, by a look of its own, whether the instance may be
	// deregistered now. It takes the lock.
	appGone func(context.Context) bool

	target target
	until  time.Time // calls for the target end by then; zero: no limit
	// settled is closed when the target is reached, or another has taken its
	// place.
	settled        chan struct{}
	dueAt          time.Time // no call for the target before then
	mayBeWithdrawn bool      // a Withdraw was called that no Restore has undone
	// A Withdraw that had no good answer may still take effect before then, even
	// after a Restore; zero: there is none. The other is the same without the
	// last Withdraw.
	inDoubtUntil, inDoubtBefore time.Time

	// For the target outOfService.
	tried         bool      // the first Withdraw of this drain is over
	withdrawnAt   time.Time // the first Withdraw of this drain that succeeded
	withdrawAgain time.Time // when Withdraw is due again
	goneAt        time.Time // since when the instance has been seen gone

	// For the target deregistered.
	appIsGone bool // by a look right before this

	lookup   lookup   // for the target inService
	recovery recovery // for the target inService

	failures    int    // in this drain
	inARow      int    // the last ones of them, since a success
	unreachable bool   // the observers have been told so, in this drain
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
		r.recovery = recovery{}
	}
	r.appIsGone = false
	r.worker.retargetLocked()
	if t == deregistered {
		r.worker.cancelLocked() // for good: there is no time to wait for a Withdraw
	}
}

// nextLocked is a task's.
func (r *registration) nextLocked(now time.Time) (*call, time.Duration) {
	switch {
	case !r.until.IsZero() && !now.Before(r.until):
		return nil, forever
	case now.Before(r.dueAt):
		return nil, r.dueAt.Sub(now)
	}
	switch r.target {
	case outOfService:
		if now.Before(r.withdrawAgain) {
			return r.callTo(opAsk, now), 0
		}
		r.mayBeWithdrawn = true
		r.inDoubtBefore, r.inDoubtUntil = r.inDoubtUntil, now.Add(2*callLimit)
		return r.callTo(opWithdraw, now), 0
	case deregistered:
		switch {
		case isClosed(r.settled):
			return nil, forever
		case r.appIsGone:
			return r.callTo(opDeregister, now), 0
		}
		return r.callTo(opAppGone, now), 0
	case inService:
	}
	if r.mayBeWithdrawn {
		return r.callTo(opRestore, now), 0
	}
	return r.nextInService(now)
}

// nextInService is nextLocked for an instance that was put back, or was never
// withdrawn: it is looked up, and seen to be listed again.
func (r *registration) nextInService(now time.Time) (*call, time.Duration) {
	wait := forever
	if _, canFind := r.Registry.(Finder); canFind && !r.lookup.over(now) {
		if !now.Before(r.lookup.dueAt) {
			return r.callTo(opFind, now), 0
		}
		wait = r.lookup.dueAt.Sub(now)
	}
	if r.recovery.underWay() {
		if !now.Before(r.recovery.askAt) {
			return r.callTo(opAsk, now), 0
		}
		if again := r.recovery.askAt.Sub(now); wait < 0 || again < wait {
			wait = again
		}
	}
	return nil, wait
}

// callTo returns a call to the registry.
func (r *registration) callTo(op string, now time.Time) *call {
	c := &call{op: op, whom: r.Name + " registry", limit: callLimit}
	if !r.until.IsZero() {
		c.limit = min(c.limit, r.until.Sub(now))
	}
	nothing := func(f func(context.Context) error) func(context.Context) (answer, error) {
		return func(ctx context.Context) (answer, error) { return answer{}, f(ctx) }
	}
	switch op {
	case opWithdraw:
		c.do, c.mustFinish = nothing(r.Registry.Withdraw), true
	case opRestore:
		c.do = nothing(r.Registry.Restore)
	case opDeregister:
		c.do = nothing(r.Registry.Deregister)
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
	case opAppGone:
		c.do = func(ctx context.Context) (answer, error) { return answer{yes: r.appGone(ctx)}, nil }
	}
	return c
}

// doneLocked is a task's.
func (r *registration) doneLocked(c *call, a answer, err error, now time.Time) {
	if c.op != opAppGone {
		r.bookLocked(c.op, err)
	}
	switch c.op {
	case opWithdraw:
		r.withdrawCalled(err, now)
	case opAsk:
		if r.target == inService {
			r.recoveryAsked(a.yes, err, now)
		} else {
			r.asked(a.yes, err, now)
		}
	case opRestore:
		r.restoreCalled(err, now)
	case opFind:
		r.findCalled(a.text, err, now)
	case opDeregister:
		r.deregisterCalled(err, now)
	case opAppGone:
		if r.appIsGone = a.yes; !a.yes {
			r.dueAt = now.Add(appGoneEvery)
		}
	}
}

func (r *registration) withdrawCalled(err error, now time.Time) {
	r.tried = true
	defer r.notifyDriver()
	if err != nil {
		r.dueAt = now.Add(r.retry.wait())
		return
	}
	r.retry.reset()
	r.inDoubtUntil = r.inDoubtBefore
	r.withdrawAgain = now.Add(withdrawAgainEvery)
	if r.withdrawnAt.IsZero() {
		r.withdrawnAt = now
		r.journal.noteLocked("%s: withdrawn", r.Name)
	}
}

// asked takes in whether the registry no longer lists the instance.
func (r *registration) asked(gone bool, err error, now time.Time) {
	switch {
	case err != nil:
		r.dueAt = now.Add(r.retry.wait())
	case gone:
		r.retry.reset()
		r.withdrawAgain = now.Add(withdrawAgainEvery + watchEvery) // only asked from now on
		r.dueAt = now.Add(watchEvery)
		if r.goneAt.IsZero() {
			r.goneAt = now
			r.journal.noteLocked("%s: no longer lists the pod; its clients forget it within %v", r.Name, r.ClientRefresh)
			r.journal.emitLocked(EventWithdrawn, "%s no longer lists the pod, %s after the drain began; its clients forget it within %v",
				r.Name, short(r.journal.sinceBeganLocked(now)), r.ClientRefresh)
			r.notifyDriver()
		}
	case !r.goneAt.IsZero():
		r.goneAt, r.withdrawAgain = time.Time{}, time.Time{}
		r.ask.reset()
		r.journal.noteLocked("%s: lists the pod again; withdrawing it again", r.Name)
		r.notifyDriver()
	default:
		r.dueAt = now.Add(r.ask.wait())
	}
}

func (r *registration) deregisterCalled(err error, now time.Time) {
	r.appIsGone = false // it is looked again before the next try
	if err != nil {
		r.dueAt = now.Add(r.retry.wait())
		return
	}
	r.mayBeWithdrawn = false
	close(r.settled)
	r.journal.noteLocked("%s: deregistered", r.Name)
}

// bookLocked takes in whether a call succeeded, and tells people of failures.
func (r *registration) bookLocked(op string, err error) {
	if err == nil {
		r.lastErr, r.inARow = "", 0
		return
	}
	r.failures++
	r.inARow++
	text := clip(err.Error())
	if r.target == outOfService && r.inARow == unreachableAfter && !r.unreachable {
		r.unreachable = true
		r.journal.emitLocked(EventUnreachable, "calls to %s fail, and are tried again until the budget ends: %s: %s", r.Name, op, text)
	}
	if text == r.lastErr {
		return
	}
	r.lastErr = text
	slog.Warn("registry: call failed, will be tried again", "registry", r.Name, "call", op, "error", err)
	if r.target == outOfService {
		r.journal.markLocked(r.Name + ": " + op + " failed: " + text)
	}
}

// forgottenAt is when the registry's clients have forgotten the instance; zero
// while that cannot be told.
func (r *registration) forgottenAt() time.Time {
	if r.goneAt.IsZero() {
		return time.Time{}
	}
	return r.goneAt.Add(r.ClientRefresh)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
