package drain

import "time"

// wish returns a wish that comes now, with the configured budget.
func (d *Drainer) wish(cause Cause) wish {
	return wish{cause: cause, at: time.Now(), budget: d.cfg.Budget()}
}

// joinsLocked reports whether a wish joins the drain last, instead of beginning
// another. A drain under way is joined by all.
//
// One that ended, and whose grace period is over, belongs to an earlier stop of
// the app: what begins after it is another. But not a signal that comes right
// then, or where the app has not come back since: the app took all of its grace
// period. After a signal's drain there is none: the process ends with it.
//
// One that ended before the kubelet was heard of stands for those who ask by a
// call, as long as it was drained. A hook or signal has a whole grace period of
// its own: it joins only what was confirmed, which makes the grace period run.
func (d *Drainer) joinsLocked(w wish, last *drainRun) bool {
	if last.outcome == "" || last.final || d.closing {
		return true
	}
	switch {
	case !last.graceRuns && w.byKubelet():
		return false
	case !w.byKubelet() && last.onRequest && last.outcome == OutcomeDrained:
		return true
	case !last.graceRuns && last.outcome == OutcomeExpired:
		return false // whoever asks again gives it more time
	}
	now := time.Now()
	graceEnd := later(last.graceEnd, last.hookAt.Add(d.cfg.GracePeriod)) // of a hook that was called again
	late := w.cause == CauseSignal && last.hooked && (d.app.gone() || now.Before(graceEnd.Add(signalAfterGrace)))
	return now.Before(last.graceEnd) || late
}

// joinLocked makes a wish part of a drain. The first one of the kubelet's sets
// the drain's end, before or after what it was; a call's never shortens it, and
// counts for nothing once the grace period runs.
func (d *Drainer) joinLocked(w wish, run *drainRun) {
	run.final = run.final || w.cause == CauseSignal
	run.onRequest = run.onRequest || w.cause == CauseCall
	switch end := w.end(); {
	case run.graceRuns:
	case w.byKubelet():
		run.graceRuns, run.graceEnd = true, w.at.Add(d.cfg.GracePeriod)
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
