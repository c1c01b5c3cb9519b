package drain

import (
	"context"
	"fmt"
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
	// changeGap is the minimum time between two questions to a registry that
	// reports changes.
	changeGap = 20 * time.Millisecond
)

func (r *registration) withdrawDoneLocked(a answer, err error, now time.Time) {
	r.tried = true
	defer r.notifyDriverLocked()
	if err != nil {
		r.dueAt = now.Add(r.retry.wait())
		return
	}
	r.retry.reset()
	r.withdrawals.answered()
	r.withdrawAgain = now.Add(withdrawAgainEvery)
	switch {
	case a.gaveUp != "": // which the question that follows confirms
	case r.unknownLocked():
		r.absentDoneLocked(now)
	case r.withdrawnAt.IsZero():
		r.withdrawnAt = now
		r.journal.noteLocked("%s: withdrawn", r.Name)
	}
}

// askDoneLocked records whether the registry no longer lists the instance.
func (r *registration) askDoneLocked(a answer, err error, now time.Time) {
	if err == nil && a.yes {
		r.confirmedAt = r.askedAt
	}
	defer r.confirmLocked(now)
	switch {
	case err != nil:
		r.dueAt = now.Add(r.retry.wait())
		return
	case a.yes:
		r.retry.reset()
		r.withdrawAgain = now.Add(withdrawAgainEvery + watchEvery) // only asked from now on
		r.dueAt = now.Add(watchEvery)
		r.goneLocked(a, now)
	case !r.goneAt.IsZero():
		r.goneAt, r.gaveUp, r.withdrawAgain = time.Time{}, "", time.Time{}
		r.ask.reset()
		r.journal.noteLocked("%s: lists the pod again; withdrawing it again", r.Name)
		r.notifyDriverLocked()
	default:
		r.dueAt = now.Add(r.ask.wait())
	}
	if r.changed {
		r.changedLocked()
	}
}

// askToConfirmLocked makes a question due at once, where the drain has waited for
// its answers.
func (r *registration) askToConfirmLocked(from time.Time) {
	if r.target != outOfService || r.goneAt.IsZero() {
		return
	}
	r.confirmFrom, r.dueAt = from, time.Time{}
	r.withdrawAgain = from.Add(withdrawAgainEvery + watchEvery)
	notify(r.worker.changed)
}

// confirmLocked is called after each question. It asks once more if that began
// too early to confirm anything.
func (r *registration) confirmLocked(now time.Time) {
	switch {
	case r.confirmFrom.IsZero() || r.target != outOfService:
		return
	case r.askedAt.Before(r.confirmFrom) && !r.goneAt.IsZero():
		r.dueAt = now
	default:
		r.confirmFrom = time.Time{}
	}
	r.notifyDriverLocked()
}

// goneLocked records that the drain need not wait any longer for the registry's
// answers, and why.
func (r *registration) goneLocked(a answer, now time.Time) {
	switch {
	case r.unknownLocked():
		r.absentDoneLocked(now)
		return
	case !r.goneAt.IsZero() && r.gaveUp == a.gaveUp:
		return
	case a.gaveUp != "":
		text := fmt.Sprintf("%s: the pod cannot be withdrawn, and the drain does not wait for it: %s", r.Name, a.gaveUp)
		slog.Warn("drain: " + text)
		r.journal.markLocked(text)
		r.journal.emitLocked(EventGivenUp, "%s", text)
	default:
		r.journal.noteLocked("%s: no longer lists the pod; its clients forget it within %v", r.Name, r.ClientRefresh)
		r.journal.emitLocked(EventWithdrawn, "%s no longer lists the pod, %s after the drain began; its clients forget it within %v",
			r.Name, short(r.journal.sinceBeganLocked(now)), r.ClientRefresh)
	}
	r.goneAt, r.gaveUp = now, a.gaveUp
	r.notifyDriverLocked()
}

// changedLocked records that the registry has reported a change: it is asked at
// once, at most every changeGap.
func (r *registration) changedLocked() {
	r.changed = true
	r.listingChangedLocked()
	soon := r.askedAt.Add(changeGap)
	if r.target != outOfService || r.inARow > 0 || !soon.Before(r.dueAt) {
		return
	}
	r.dueAt = soon
	notify(r.worker.changed)
}

// watchChanges passes on the changes that the registry reports, until ctx ends.
func (r *registration) watchChanges(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-r.changes:
			if !open {
				return
			}
			r.worker.mu.Lock()
			r.changedLocked()
			r.worker.mu.Unlock()
		}
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
	if r.unknownLocked() {
		r.journal.noteLocked("%s: nothing to deregister: the pod's instance was never found", r.Name)
		return
	}
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
	if isNotFound(err) {
		slog.Warn("registry: the pod's instance was not found, and is searched for again", "registry", r.Name, "error", err)
		return
	}
	slog.Warn("registry: call failed, will be tried again", "registry", r.Name, "call", op, "error", err)
	if r.target == outOfService {
		r.journal.markLocked(r.Name + ": " + op + " failed: " + text)
	}
}
