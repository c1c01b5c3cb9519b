package drain

import (
	"log/slog"
	"time"
)

const (
	// lookWhileServing is how often the watch looks who listens on the app's ports
	// while nothing depends on it.
	lookWhileServing = time.Second
	// lookWhileStarting is the same while nobody does: registries are asked for
	// the app's instance once somebody listens.
	lookWhileStarting = 500 * time.Millisecond
	// lookWhileLeaving is the same while a restart may end a drain, or the
	// app's end the process.
	lookWhileLeaving = 50 * time.Millisecond
	// startPatience is how long an app may take to start before it is worth
	// reporting that a counter cannot be read, where the app's port is not known,
	// or nobody listens on it.
	startPatience = time.Minute
	// startSettles is how long after it listens its statistics may not be there.
	startSettles = 5 * time.Second
)

// watchApp looks who listens on the app's ports for as long as the process
// lives: before a drain too, so that a new start is seen by who listens, and
// not by a moment in which nobody does.
func (d *Drainer) watchApp() {
	for d.ctx.Err() == nil {
		d.app.look(d.ctx)
		others := d.otherPortsMatter()
		if others {
			d.app.lookAtOthers(d.ctx)
		}
		d.mu.Lock()
		if others {
			d.notifyDriverLocked()
		}
		d.warnSilentLocked(time.Now())
		every := d.lookEveryLocked()
		d.mu.Unlock()
		pause(d.ctx, every, d.app.soon)
	}
}

// lookEveryLocked is how long to wait between two looks.
func (d *Drainer) lookEveryLocked() time.Duration {
	run := d.run
	if d.stopping || run != nil && run.hooked && !run.onRequest {
		return lookWhileLeaving
	}
	if !d.app.any() {
		return lookWhileStarting
	}
	return lookWhileServing
}

// appLookedLocked acts on what a look at the app has shown.
func (d *Drainer) appLookedLocked(started int) {
	if started > 0 {
		for _, r := range d.registrations {
			r.appStartedLocked()
		}
	}
	d.appLooksReadyLocked()
	run := d.run
	if run == nil {
		return
	}
	if gone := d.app.gone(); gone != run.appGone {
		run.appGone = gone
		switch {
		case gone:
			d.journal.noteLocked("the app does not listen")
		case d.app.known:
			d.journal.noteLocked("the app listens again")
		}
		notify(d.appSeen)
	}
	if d.app.any() && run.outcome == "" {
		run.readingsAlive, run.presentAlive = run.last.readings, run.present
	}
	d.decideLocked(time.Now())
}

// otherPortsMatter reports whether it is time to read which other ports the pod
// listens on.
func (d *Drainer) otherPortsMatter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	matters := d.run != nil && d.run.outcome == "" || !d.app.silentWarned && now.Sub(d.began) >= silentFor
	return matters && d.app.othersDueLocked(now)
}

// warnSilentLocked reports ports that nobody has listened on for a minute, once
// before the first drain, and once in each.
func (d *Drainer) warnSilentLocked(now time.Time) {
	run, w := d.run, d.app
	if len(w.silent()) == 0 || w.othersAt.IsZero() {
		return
	}
	switch {
	case run != nil && run.outcome == "" && !run.silentWarned:
		run.silentWarned = true
	case run == nil && !w.silentWarned && now.Sub(d.began) >= silentFor:
	default:
		return
	}
	w.silentWarned = true
	text := w.silentTextLocked()
	d.journal.markLocked(text)
	slog.Warn("app: " + text)
	d.journal.emitLocked(EventPortSilent, "%s", text)
}

// appMayRegisterLocked reports whether the app has had too little time to
// register since it was first seen to listen, or since the process began.
func (d *Drainer) appMayRegisterLocked(now time.Time) bool {
	return now.Sub(later(d.began, d.app.startedAt)) < registerWithin
}

// tryCounters reads each counter once when the app has started, so that a
// mistake shows before the first drain.
func (d *Drainer) tryCounters() {
	for wait := time.Second; ; {
		pause(d.ctx, wait, nil)
		if d.ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		worth := d.counterWorthReportingLocked(time.Now())
		d.mu.Unlock()
		if worth {
			d.pollers.read(d.ctx)
			return
		}
	}
}

// counterWorthReportingLocked reports whether it is worth reporting that a
// counter cannot be read: an app that has not started yet has nothing to read.
func (d *Drainer) counterWorthReportingLocked(now time.Time) bool {
	started := !d.app.startedAt.IsZero() && now.Sub(d.app.startedAt) >= startSettles
	return started || d.run != nil || now.Sub(d.began) >= startPatience
}
