package drain

import (
	"context"
	"slices"
	"time"
)

// confirmLimit is how long it may take, beyond the quiet time, to find out
// whether a drain that ended still holds. After that another begins: it makes
// the same calls, and has the rest of the budget for them.
const confirmLimit = 2 * time.Second

// A confirmation finds out whether a drain that ended as drained still holds:
// whether the pod is still gone from its registries, and still quiet.
type confirmation struct {
	trigger trigger       // the first that has asked
	hooks   int           // preStop callers that wait for it
	over    chan struct{} // closed when that is known
	run     *drainRun     // the hooks' drain, where it had to begin before that is known
}

// confirm returns when it is known whether the drain that ended before a trigger of
// the kubelet's still holds, or when ctx ends. A drain that holds is joined by
// that trigger, as are those that come after it. Where there is nothing to find
// out, it returns at once.
//
// It returns the trigger with the time of the first that has waited for this: a
// drain that begins after all has no more time than that one leaves. begun is a
// hook's drain that has begun meanwhile, and counts that hook.
func (d *Drainer) confirm(ctx context.Context, t trigger) (_ trigger, begun *drainRun) {
	d.mu.Lock()
	run := d.run
	if run == nil || run.outcome != OutcomeDrained || d.joinsLocked(t, run) {
		d.mu.Unlock()
		return t, nil
	}
	c := run.confirming
	if c == nil {
		c = &confirmation{trigger: t, over: make(chan struct{})}
		run.confirming = c
		d.confirmRegistriesLocked(run, t)
		d.spawn(func() { d.findOut(run, c) })
	}
	if t.cause == CauseHook {
		c.hooks++
	}
	d.mu.Unlock()
	d.app.look(ctx) // a new start from here on is one that the hook knows nothing of
	select {
	case <-c.over:
	case <-ctx.Done():
	case <-d.aborted:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t.at = c.trigger.at
	if t.cause != CauseHook {
		return t, nil
	}
	c.hooks--
	return t, c.run
}

// overtakeLocked begins the drain of hooks that wait for a confirmation, if there
// are any, because what happens now is to happen to that drain. It returns the
// present drain.
func (d *Drainer) overtakeLocked() *drainRun {
	if d.run == nil || d.run.confirming == nil || d.run.confirming.hooks == 0 {
		return d.run
	}
	c := d.run.confirming
	d.run.confirming = nil
	c.run = d.beginLocked(trigger{cause: CauseHook, at: c.trigger.at, budget: c.trigger.budget})
	c.run.hooked, c.run.hooks, c.run.hookAt = true, c.hooks, later(c.run.hookAt, c.trigger.at)
	return c.run
}

// confirmRegistriesLocked asks every registry whether the instance is still gone.
func (d *Drainer) confirmRegistriesLocked(run *drainRun, t trigger) {
	if !run.onRequest {
		d.keepOutLocked(t.end()) // what it was told until then is over
	}
	for _, r := range d.registrations {
		r.askToConfirmLocked(t.at)
	}
}

// findOut finds out whether a drain that has ended still holds.
func (d *Drainer) findOut(run *drainRun, c *confirmation) {
	ctx, cancel := context.WithTimeout(d.ctx, min(d.cfg.Quiet+confirmLimit, d.cfg.Budget()/2))
	defer cancel()
	d.mu.Lock()
	q := d.quietSinceLocked(run)
	d.mu.Unlock()
	holds := false
	for over := false; !over; {
		s := d.pollers.read(ctx)
		now := time.Now()
		quiet := q.look(s, now)
		busy := q.since.IsZero() // or unreadable
		d.mu.Lock()
		gone, listed := d.stillGoneLocked(c.trigger.at, now)
		stands := d.run == run && !d.closing && len(d.app.inDoubtLocked()) == 0
		holds = stands && quiet && gone
		over = holds || !stands || busy || listed || ctx.Err() != nil
		d.mu.Unlock()
		if !over {
			again := max(time.Until(q.due()), minPollInterval)
			if quiet {
				again = maxPollInterval // it waits for a registry
			}
			pause(ctx, again, run.changed)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	run.confirming = nil
	if holds && d.run == run && !d.closing {
		run.graceRuns = false // this is another stop of the app than the one before, if there was one
		d.joinLocked(c.trigger, run)
		if !run.onRequest {
			d.keepOutLocked(c.trigger.end())
		}
		d.journal.noteLocked("asked to drain again (%s): still drained", c.trigger.cause)
	}
	close(c.over)
}

// quietSinceLocked returns what is known of the quiet since a drain ended: where a
// counter sees requests arrive, the next look shows whether any has.
func (d *Drainer) quietSinceLocked(run *drainRun) quiet {
	q := quiet{span: d.cfg.Quiet, threshold: d.cfg.Threshold}
	seen := slices.ContainsFunc(run.last.readings, func(r reading) bool { return r.err == nil && r.HasArrived })
	if seen || len(d.pollers.all) == 0 {
		q.look(run.last, run.since) // since when it is drained
	}
	return q
}

// stillGoneLocked reports whether every registry has said since then that the
// instance is gone, and clients have forgotten it; and whether one lists it.
func (d *Drainer) stillGoneLocked(since, now time.Time) (gone, listed bool) {
	gone = true
	for _, r := range d.registrations {
		if r.target != outOfService || r.goneAt.IsZero() {
			return false, true
		}
		gone = gone && !r.confirmedAt.Before(since) && !now.Before(r.forgottenAtLocked())
	}
	return gone, false
}
