package drain

import (
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
	// withdrawAgainEvery is how often Withdraw is called again for an instance
	// that the registry still lists: it may have lost the withdrawal.
	withdrawAgainEvery = 5 * time.Second
	// unreachableAfter is how many calls in a row must fail before that is
	// reported: one failure is of no interest.
	unreachableAfter = 2
)

func (r *registration) withdrawDoneLocked(err error, now time.Time) {
	r.tried = true
	defer r.notifyDriverLocked()
	if err != nil {
		r.dueAt = now.Add(r.retry.wait())
		return
	}
	r.retry.reset()
	r.withdrawals.answered()
	r.withdrawAgain = now.Add(withdrawAgainEvery)
	if r.withdrawnAt.IsZero() {
		r.withdrawnAt = now
		r.journal.noteLocked("%s: withdrawn", r.Name)
	}
}

// askDoneLocked records whether the registry no longer lists the instance.
func (r *registration) askDoneLocked(gone bool, err error, now time.Time) {
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
			r.notifyDriverLocked()
		}
	case !r.goneAt.IsZero():
		r.goneAt, r.withdrawAgain = time.Time{}, time.Time{}
		r.ask.reset()
		r.journal.noteLocked("%s: lists the pod again; withdrawing it again", r.Name)
		r.notifyDriverLocked()
	default:
		r.dueAt = now.Add(r.ask.wait())
	}
}

func (r *registration) deregisterDoneLocked(err error, now time.Time) {
	r.appIsGone = false // the app is looked at again before the next try
	if err != nil {
		r.dueAt = now.Add(r.retry.wait())
		return
	}
	r.mayBeWithdrawn = false
	close(r.settled)
	r.journal.noteLocked("%s: deregistered", r.Name)
}

// bookLocked records whether a call succeeded, and reports failures.
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
