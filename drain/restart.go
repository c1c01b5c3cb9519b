package drain

import (
	"fmt"
	"slices"
	"time"
)

// signalMargin is how long after the end of the grace period a SIGTERM may
// still come. The kubelet counts whole seconds, its clock began to run earlier
// than ours, and a busy node is late.
const signalMargin = 5 * time.Second

// The moments around an app's end that distinguish a native sidecar's SIGTERM
// from a classic one's. See endEarlyLocked.
const (
	// shortestGrace is less than any grace period but zero: one second, as the
	// sidecar measures it.
	shortestGrace = 900 * time.Millisecond
	// killTakes is how long after a native sidecar's SIGTERM the app that is
	// killed with it may still be seen to listen.
	killTakes = time.Second
	// surelyLate is how long after the hook a classic sidecar's SIGTERM does not
	// come, where there is no listener to go by, or the app still listens.
	surelyLate = 2 * time.Second
	// lastReadingWithin is how long the counters have to show whether an app that
	// does not listen still works.
	lastReadingWithin = 500 * time.Millisecond
)

// decideLocked decides whether the pod is going or its app was only restarted.
// It is asked at every look, so that each hook ends in a decision, whether it
// has returned, has broken off or was given up by a kubelet that leaves the
// request open:
//
//   - SIGTERM has come: the pod goes, for good. Left to decide is whether the
//     drain's end has come with it.
//   - A port that was listened on when the hook was called is listened on again:
//     the kubelet starts nothing in a pod that it deletes. But one that was
//     silent then may only have been starting. Where more hooks wait than
//     ports were started, another container's hook is one of them, and its
//     requests may be in flight.
//   - The grace period is over, and so is the margin in which a late SIGTERM
//     would have come, and the app listens as it did: the pod is not being
//     deleted. A kubelet that broke a hook off, to be restarted, has had the
//     time to call it again.
//   - Otherwise the pod stays out. An app that is gone may be in its back-off.
//
// What somebody has asked for by a call is left to them.
func (d *Drainer) decideLocked(now time.Time) {
	run := d.run
	switch {
	case run == nil || d.closing:
		return
	case d.stopping:
		d.endEarlyLocked(run, now)
		return
	case !run.hooked || run.onRequest || run.confirming != nil:
		return
	}
	started := d.app.restarted()
	switch {
	case len(started) > 0 && run.hooks <= len(started):
		d.takeBackLocked(run, "the app was only restarted: it listens again on port "+portList(started))
	case now.Before(d.noSignalAtLocked(run)):
	case d.app.back():
		d.takeBackLocked(run, fmt.Sprintf("the app listens, and no SIGTERM has come %v after the hook, when the grace period of %v was long over: the pod is not being deleted",
			now.Sub(run.hookAt).Round(time.Second), d.cfg.GracePeriod))
	}
}

// noSignalAtLocked is when the pod would have been told to stop, were it being
// deleted.
func (d *Drainer) noSignalAtLocked(run *drainRun) time.Time {
	return run.hookAt.Add(d.cfg.GracePeriod + signalMargin)
}

// endEarlyLocked ends a drain under way when the app's end has come before
// it: then the process has some 2 s left, in which the outcome must be written
// and the instance be deregistered.
//
// A native sidecar gets its first SIGTERM when the app has exited or is killed,
// so within a moment the app does not listen. A classic one gets it with the
// hook's arrival, and its app lives on. So the sure sign is that nobody listens
// any more where somebody did, and that the SIGTERM has not come with the hook.
// With a SIGTERM that came early, an app that does not listen has ended as
// well, unless it was told to take no new work: then its listeners close first.
// In either case a counter that sees work on open connections proves that the
// app lives.
//
// An app that hangs is killed together with the sidecar, where its grace period
// has ended in the hook: it listens to the last. There only a SIGTERM that is
// surely not a classic sidecar's tells.
func (d *Drainer) endEarlyLocked(run *drainRun, now time.Time) {
	if run.outcome != "" || !run.hooked {
		return
	}
	if !d.app.gone() {
		if d.stoppedAt.Sub(run.hookAt) >= surelyLate && now.Sub(d.stoppedAt) >= killTakes {
			d.appEndedFirstLocked(run, fmt.Sprintf("the sidecar was told to stop in the middle of the drain, and the app is about to be killed: the pod's grace period is shorter than LASTCALL_GRACE_PERIOD=%v, or this deletion allowed less (--grace-period, eviction, node shutdown)", d.cfg.GracePeriod))
		}
		return
	}
	ended, gone := d.appEndedLocked(run, now)
	if !ended {
		return
	}
	if run.last.began.Before(gone) && now.Before(gone.Add(lastReadingWithin)) {
		notify(run.changed) // the driver reads the counters
		return
	}
	if worksSince(&run.last, d.app.goneAt) {
		return
	}
	// What was in flight when the app was last seen is what was cut off.
	if d.app.ever() {
		run.last.readings, run.present = run.readingsAlive, run.presentAlive
	}
	d.appEndedFirstLocked(run, fmt.Sprintf("the sidecar was told to stop and the app is gone before the drain has ended: the pod's grace period is shorter than LASTCALL_GRACE_PERIOD=%v, this deletion allowed less (--grace-period, eviction, node shutdown), or the app has ended by itself", d.cfg.GracePeriod))
}

// appEndedLocked reports whether an app that does not listen has ended, as far
// as that can be told by who listened when, and since when it has.
func (d *Drainer) appEndedLocked(run *drainRun, now time.Time) (ended bool, gone time.Time) {
	gone = d.app.goneAt
	run.worksUnheard = run.worksUnheard || worksSince(&run.last, gone)
	switch {
	case !d.app.ever():
		return d.stoppedAt.Sub(run.hookAt) >= surelyLate, d.stoppedAt
	case run.stoppedLate(d.stoppedAt) && !gone.After(d.stoppedAt.Add(killTakes)):
		return true, gone
	case len(d.controls) == 0 && !run.worksUnheard && gone.Sub(run.hookAt) >= shortestGrace && now.Sub(gone) >= 2*lookWhileLeaving:
		return true, gone
	}
	return false, gone
}

// worksSince reports whether the counters have seen work on open connections
// since an app was gone: then it lives.
func worksSince(s *snapshot, gone time.Time) bool {
	return !s.began.Before(gone) && slices.ContainsFunc(s.readings, func(r reading) bool { return r.err == nil && r.HasOpen && r.InFlight > 0 })
}

func (d *Drainer) appEndedFirstLocked(run *drainRun, why string) {
	run.appEndedFirst, run.why = true, why
	d.finishLocked(run, OutcomeExpired)
}

// mayBeKilledLocked reports whether the app may be ending under a drain that
// looks as if it had ended well: a SIGTERM has just come that is not a classic
// sidecar's, and the app's connections end with it.
func (d *Drainer) mayBeKilledLocked(run *drainRun, now time.Time) bool {
	return d.cfg.App != nil && d.stopping && run.stoppedLate(d.stoppedAt) && now.Before(d.stoppedAt.Add(killTakes+2*lookWhileLeaving))
}
