package drain

import (
	"context"
	"log/slog"
	"time"
)

const (
	// killedAfter is how long after a SIGTERM that comes with the app's end the
	// process has, with what it takes to hand on the last events left out: the
	// kubelet allows 2 s.
	killedAfter = 1200 * time.Millisecond
	// signalAfterGrace is how long after the end of the grace period a signal
	// belongs to it. The kubelet tells a native sidecar to stop when the app has
	// exited, and else when the grace period is over, in the moment in which it
	// kills the app; the sidecar then has 2 s.
	signalAfterGrace = 2 * time.Second
)

// workLeft reports whether the drain ended with more in flight than accepted,
// by a last look, since a drain may be cut short before its first. Where the
// app's end has come first, it is what was in flight when it last listened.
func (d *Drainer) workLeft(run *drainRun) bool {
	d.mu.Lock()
	outcome, readings, final := run.outcome, run.last.readings, run.appEndedFirst
	d.mu.Unlock()
	if outcome == OutcomeDrained || outcome == OutcomeNotFound {
		return false
	}
	if !final {
		ctx, cancel := context.WithTimeout(d.ctx, d.cfg.leaveEarly()/2)
		defer cancel()
		readings = d.pollers.read(ctx).readings
	}
	sum, known := inFlight(readings)
	return !known || len(readings) < len(d.pollers.all) || sum > d.cfg.Threshold
}

// lastMoment is when the process sees to its last things, whether the app is
// gone or not. A signal that comes only then is a native sidecar's, in the moment
// in which its app is killed: an app that has a moment more would register
// itself again.
func (d *Drainer) lastMoment(run *drainRun) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	end := run.graceEnd.Add(-d.cfg.leaveEarly())
	if d.stoppedAt.After(end) {
		return d.stoppedAt.Add(3 * d.cfg.leaveEarly() / 4)
	}
	return end
}

// awaitApp returns when the app is gone, SIGINT has come, or the grace period
// is about to end. Where the app's port is not known, there is only a registry
// to wait for: its app would register itself again.
func (d *Drainer) awaitApp(run *drainRun) {
	if run.appEndedFirst || d.cfg.App == nil && len(d.registrations) == 0 {
		return
	}
	timer := time.NewTimer(time.Until(d.lastMoment(run)))
	defer timer.Stop()
	for {
		d.mu.Lock()
		gone := d.app.gone() && !d.mayBeStartingLocked(run)
		d.mu.Unlock()
		if gone {
			return
		}
		select {
		case <-timer.C:
			return
		case <-d.aborted:
			return
		case <-d.appSeen:
		}
	}
}

// mayBeStartingLocked reports whether an app that does not listen may live, and
// register itself yet: nobody has ever seen it listen, and a SIGTERM that came
// with the hook is a classic sidecar's, whose app was told to stop at the same
// time at the earliest.
func (d *Drainer) mayBeStartingLocked(run *drainRun) bool {
	return len(d.registrations) > 0 && !d.app.ever() && run.hooked && !run.stoppedLate(d.stoppedAt)
}

// mayDeregister reports, by a look of its own, whether the app is gone or the
// grace period is about to end. A registry client in a live app would register
// itself again.
func (d *Drainer) mayDeregister(ctx context.Context) bool {
	d.mu.Lock()
	run := d.run
	starting := run != nil && d.mayBeStartingLocked(run)
	d.mu.Unlock()
	if run == nil {
		return false
	}
	if !time.Now().Before(d.lastMoment(run)) {
		return true
	}
	listening, known := d.app.look(ctx)
	return known && !listening && !starting
}

// deregister removes the instance from its registries. It returns by the end
// of the grace period, or a second and a half after it where the sidecar was told
// to stop only then; within what is left where the app's end has come early; at once
// when SIGINT has come while the app lives.
func (d *Drainer) deregister(run *drainRun, signalledAt time.Time) {
	if len(d.registrations) == 0 {
		return
	}
	end := run.graceEnd.Add(-d.cfg.leaveEarly() / 5)
	switch now := time.Now(); {
	case run.appEndedFirst:
		end = later(signalledAt.Add(killedAfter), now.Add(d.cfg.leaveEarly()/5))
	case signalledAt.After(run.graceEnd.Add(-d.cfg.leaveEarly())):
		end = signalledAt.Add(3 * d.cfg.leaveEarly() / 2) // it has 2 s from then, in any case
	}
	if isClosed(d.aborted) {
		if !d.mayDeregister(d.ctx) {
			slog.Warn("drain: ended by SIGINT while the app lives: it stays in its registries, out of service")
			return
		}
		if soon := time.Now().Add(d.cfg.leaveEarly()); soon.Before(end) {
			end = soon
		}
	}
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for i, settled := range d.retarget(deregistered, end) {
		select {
		case <-settled:
		case <-timer.C:
			timer.Reset(0)
			if !isClosed(settled) {
				slog.Error("drain: not deregistered in time; the registry drops the instance when its lease ends", "registry", d.registrations[i].Name)
			}
		}
	}
}

// retarget sends all registrations to a target, and returns what is closed when
// they are there.
func (d *Drainer) retarget(t target, until time.Time) (settled []chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retargetLocked(t, until)
	return d.settledLocked()
}

func (d *Drainer) retargetLocked(t target, until time.Time) {
	for _, r := range d.registrations {
		r.setTargetLocked(t, until)
	}
}

func (d *Drainer) settledLocked() (settled []chan struct{}) {
	for _, r := range d.registrations {
		settled = append(settled, r.settled)
	}
	return settled
}

// close ends all goroutines. It waits only a moment: a plug-in that ignores its
// context must not hold up the process.
func (d *Drainer) close() {
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	d.cancel()
	ended := make(chan struct{})
	go func() {
		d.running.Wait()
		close(ended)
	}()
	timer := time.NewTimer(d.cfg.leaveEarly() / 10)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
