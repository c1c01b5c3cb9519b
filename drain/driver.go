package drain

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// minPollInterval is the least time between two readings of the counters: an
	// app that writes its file for every request must not keep the sidecar busy.
	minPollInterval = 5 * time.Millisecond
	// minEarlyPollInterval is the same before the phase of draining, in which
	// readings only date what arrives.
	minEarlyPollInterval = 50 * time.Millisecond
	// pollBackoffDivisor is by how much of the time for which nothing has changed
	// the next reading is put off: a drain that waits for hours for one
	// connection reads every second, one that waits for seconds at each poll, and
	// what is lost by it is at most 1 % of the wait.
	pollBackoffDivisor = 100
	// maxPollInterval is how often counters that report their changes are read all
	// the same, and how often all are while a drain waits for something else.
	maxPollInterval = time.Second
	// logWaitEvery is how often a waiting drain says in the log what it waits for.
	logWaitEvery = 5 * time.Second
)

// A driver moves one drain through its phases. The functions that it is handed
// end the drain; those named …Locked need the lock.
type driver struct {
	mu            *sync.Mutex // the Drainer's
	cfg           *Config
	run           *drainRun
	registrations []*registration
	pollers       *pollers
	app           *appWatch
	journal       *journal
	spawn         func(func()) // runs a function until the process ends

	finishLocked      func(*drainRun, Outcome)             // ends the drain, unless it has ended
	decideLocked      func(now time.Time)                  // may end it, by what is known of the app
	mayBeKilledLocked func(*drainRun, time.Time) (is bool) // the app may be ending right now

	// Of the driver's own goroutine.
	quiet     quiet
	snapshots chan snapshot // the reading under way is sent here
	reading   bool          // one is under way
	again     bool          // something changed while it was
	nextAt    time.Time     // when the next is due
	lastAt    time.Time     // when the last one began
	notified  bool          // every counter reports its changes
	loggedAt  time.Time     // when the log last said what the drain waits for
	draining  bool          // the phase, as this driver last entered it
}

// drive returns when the drain has ended, which ends ctx.
func (v *driver) drive(ctx context.Context) {
	v.quiet = quiet{span: v.cfg.Quiet, threshold: v.cfg.Threshold}
	v.snapshots = make(chan snapshot, 1)
	v.loggedAt = v.run.began
	changed, all := v.pollers.changes(ctx, v.spawn)
	v.notified = all
	for {
		now := time.Now()
		if v.expired(now) {
			return
		}
		until := v.advance(now)
		v.read(ctx, now)
		timer := time.NewTimer(time.Until(v.nextStep(until)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-v.run.changed:
			v.again = true
		case <-changed:
			v.again = true
		case s := <-v.snapshots:
			if v.take(s) {
				timer.Stop()
				return
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// expired ends a drain whose budget has ended, and reports whether it has.
func (v *driver) expired(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if end := v.run.budgetEnd; end.IsZero() || now.Before(end) {
		return false
	}
	v.finishLocked(v.run, OutcomeExpired)
	return true
}

// advance enters the phase that the drain has come to, and returns when time
// alone may change it or end the drain; zero when it cannot.
func (v *driver) advance(now time.Time) (until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	run := v.run
	if run.outcome != "" {
		return time.Time{}
	}
	phase, present, until := v.standingLocked(now)
	if end := run.budgetEnd; !end.IsZero() && (until.IsZero() || end.Before(until)) {
		until = end
	}
	if phase != run.phase {
		run.enter(phase, now)
		v.journal.noteLocked("%s", phase)
		if phase == Draining {
			// A client that discovered the pod at the last moment may only
			// now be arriving: quiet time before does not count.
			v.quiet.since = time.Time{}
			v.nextAt = now
		}
		v.draining = phase == Draining
	}
	if phase == Draining {
		present = append(v.workWaitsLocked(), v.portWaitsLocked()...)
	}
	run.waits.become(present, now)
	run.present = present
	if now.Sub(v.loggedAt) >= logWaitEvery {
		v.loggedAt = now
		slog.Info("drain: "+run.waitingFor(now), "phase", phase)
	}
	return until
}

// read begins a reading of all counters when one is due.
func (v *driver) read(ctx context.Context, now time.Time) {
	due := !now.Before(v.nextAt) || v.again && !now.Before(v.soonest())
	if v.reading || !due {
		return
	}
	v.reading, v.again, v.lastAt = true, false, now
	v.spawn(func() {
		s := v.pollers.read(ctx)
		if allClosed(s.readings) {
			// An app that was killed has no connection open either.
			s.appListens, _ = v.app.look(ctx)
		}
		v.snapshots <- s
	})
}

// soonest is when the next reading may begin at the earliest.
func (v *driver) soonest() time.Time {
	if v.draining {
		return v.lastAt.Add(minPollInterval)
	}
	return v.lastAt.Add(minEarlyPollInterval)
}

// nextStep is when the driver has something to do, should nothing happen.
func (v *driver) nextStep(until time.Time) time.Time {
	next := v.loggedAt.Add(logWaitEvery)
	if !until.IsZero() && until.Before(next) {
		next = until
	}
	if v.reading {
		return next
	}
	if v.again {
		if soon := v.soonest(); soon.Before(next) {
			next = soon
		}
	}
	if v.nextAt.Before(next) {
		next = v.nextAt
	}
	return next
}

// take takes a snapshot in. It returns true when the drain has ended.
func (v *driver) take(s snapshot) (ended bool) {
	now := time.Now()
	v.advance(now) // a registry may have listed the pod again meanwhile
	v.mu.Lock()
	defer v.mu.Unlock()
	run := v.run
	v.reading = false
	if run.outcome != "" {
		return true // what it ended with stands
	}
	run.last = s
	v.warnUnreadableLocked(s.readings)
	quiet := v.quiet.look(s, now)
	nobody := v.quiet.nobody(s) && (v.cfg.App == nil || s.appListens) // for nobody there is no quiet time
	done := (quiet || nobody) && len(v.app.inDoubtLocked()) == 0
	v.decideLocked(now)
	v.nextAt = s.began.Add(v.pollIntervalLocked(now))
	switch {
	case run.outcome != "":
		return true
	case run.phase != Draining:
		return false
	case s.began.Before(run.since):
		// This reading began before the phase: it proves nothing of it.
		v.quiet.since = time.Time{}
		v.nextAt = now
		return false
	case done && v.mayBeKilledLocked(run, now):
		v.nextAt = now.Add(lookWhileLeaving)
		return false
	case done:
		outcome := OutcomeDrained
		if unfound := neverFoundLocked(v.registrations); len(unfound) > 0 {
			outcome = OutcomeNotFound
			run.why = "the pod's instance was never found in " + strings.Join(unfound, ", ") + ": clients may still be sent to the pod"
		}
		v.finishLocked(run, outcome)
		return true
	}
	v.readWhenQuiet(s, quiet, now)
	return false
}

// pollIntervalLocked is how long to wait between two readings if no counter
// reports a change.
func (v *driver) pollIntervalLocked(now time.Time) time.Duration {
	every := max(v.cfg.Poll, maxPollInterval)
	if v.run.phase == Draining && !v.notified {
		every = min(every, max(v.cfg.Poll, now.Sub(v.quiet.changed)/pollBackoffDivisor))
	}
	return every
}

// readWhenQuiet has the counters read when the quiet time may be over.
func (v *driver) readWhenQuiet(s snapshot, quiet bool, now time.Time) {
	if due := v.quiet.due(); !quiet && !due.IsZero() && due.Before(v.nextAt) {
		v.nextAt = due
	}
	if calm := v.quiet.calm.Add(v.quiet.span); allClosed(s.readings) && calm.After(now) && calm.Before(v.nextAt) {
		v.nextAt = calm // nobody is left by then
	}
}

// warnUnreadableLocked reports counters that cannot be read in this drain, each
// once.
func (v *driver) warnUnreadableLocked(readings []reading) {
	for i, r := range readings {
		if r.err == nil || v.pollers.all[i].inARow < unreadableAfter || v.run.unreadable[r.name] {
			continue
		}
		v.run.unreadable[r.name] = true
		text := clip(r.err.Error())
		v.journal.markLocked(r.name + ": cannot be read: " + text)
		v.journal.emitLocked(EventUnreadable, "the counter %s cannot be read, and the drain waits until it can or the budget ends: %s", r.name, text)
	}
}
