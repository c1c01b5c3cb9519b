package drain

import "time"

// trigger returns a trigger that comes now, with the configured budget.
func (d *Drainer) trigger(cause Cause) trigger {
	return trigger{cause: cause, at: time.Now(), budget: d.cfg.Budget()}
}

// joinsLocked reports whether a trigger joins the drain last, instead of beginning
// another. A drain under way is joined by all, and a process that is told to end
// at once begins none.
//
// One that ended, and whose grace period is over, belongs to an earlier stop of
// the app: what begins after it is another. But not a signal that comes right
// then, or where the app has not come back since: the app took all of its grace
// period. After a signal's drain there is none: the process ends with it.
//
// One that ended before the kubelet was heard of stands for those who ask by a
// call, as long as it was drained. A hook or signal has a whole grace period of
// its own: it joins only what was confirmed, which makes the grace period run.
func (d *Drainer) joinsLocked(t trigger, last *drainRun) bool {
	if last.outcome == "" || last.final || d.closing || isClosed(d.aborted) {
		return true
	}
	switch {
	case !last.graceRuns && t.byKubelet():
		return false
	case !t.byKubelet() && last.onRequest && last.outcome == OutcomeDrained:
		return true
	case !last.graceRuns && last.outcome == OutcomeExpired:
		return false // whoever asks again gives it more time
	}
	now := time.Now()
	graceEnd := later(last.graceEnd, last.hookAt.Add(d.cfg.GracePeriod)) // of a hook that was called again
	late := t.cause == CauseSignal && last.hooked && (d.app.gone() || now.Before(graceEnd.Add(signalAfterGrace)))
	return now.Before(last.graceEnd) || late
}

// joinLocked makes a trigger part of a drain. The first one of the kubelet's sets
// the drain's end, before or after what it was; a call's never shortens it, and
// counts for nothing once the grace period runs.
func (d *Drainer) joinLocked(t trigger, run *drainRun) {
	run.final = run.final || t.cause == CauseSignal
	run.onRequest = run.onRequest || t.cause == CauseCall
	switch end := t.end(); {
	case run.graceRuns:
	case t.byKubelet():
		run.graceRuns, run.graceEnd = true, t.at.Add(d.cfg.GracePeriod)
		if run.outcome == "" {
			run.budgetEnd = end
		}
	case run.outcome == "" && !run.budgetEnd.IsZero() && (end.IsZero() || end.After(run.budgetEnd)):
		run.budgetEnd = end
		d.journal.noteLocked("the budget is now %s", budgetText(run.budget()))
	}
	d.keepOutLocked(run.keepUntil())
	notify(run.changed)
}

// keepOutLocked sets until when those that were told of the drain are called for
// it, unless they have another target by now.
func (d *Drainer) keepOutLocked(until time.Time) {
	for _, r := range d.registrations {
		if r.target == outOfService {
			r.until = until
			notify(r.worker.changed)
		}
	}
	for _, c := range d.controls {
		if c.stop {
			c.until = until
			notify(c.worker.changed)
		}
	}
}
