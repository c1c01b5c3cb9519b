package drain

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

const (
	// roundsApart is the least time between two looks at the counters: an app
	// that writes its file for every request must not keep the sidecar busy.
	roundsApart = 5 * time.Millisecond
	// roundsApartEarly is the same before the phase of draining, in which looks
	// only date what arrives.
	roundsApartEarly = 50 * time.Millisecond
	// seldomer is by how much of the time for which nothing has changed the
	// next look is put off: a drain that waits for hours for one connection
	// looks every second, one that waits for seconds at each poll, and what
	// is lost by it is at most 1 % of the wait.
	seldomer = 100
	// safetyNet is how often counters that tell their changes are read all
	// the same, and how often all are while a drain waits for something else.
	safetyNet = time.Second
	// tellEvery is how often a waiting drain says in the log what it waits for.
	tellEvery = 5 * time.Second
)

// driver moves one drain through its phases.
type driver struct {
	*Drainer
	l     *leaving
	quiet quiet

	rounds  chan round // the round under way is sent here
	reading bool       // a round is under way
	again   bool       // something changed while it was
	nextAt  time.Time  // when the next round is due
	lastAt  time.Time  // when the last one began
	notify  bool       // every counter tells its changes
	toldAt  time.Time  // when the log was last told

	draining bool // the phase, as this driver last entered it
}

// drive returns when the drain has ended; ctx ends with its budget.
func (d *Drainer) drive(ctx context.Context, l *leaving) {
	v := &driver{
		Drainer: d,
		l:       l,
		quiet:   quiet{span: d.cfg.Quiet, threshold: d.cfg.Threshold},
		rounds:  make(chan round, 1),
		toldAt:  l.began,
	}
	wake, notify := d.changes(ctx)
	v.notify = notify
	for {
		now := time.Now()
		until := v.advance(now)
		v.read(ctx, now)
		timer := time.NewTimer(time.Until(v.nextLook(until)))
		select {
		case <-ctx.Done():
			timer.Stop()
			d.finish(l, OutcomeExpired) // unless it ended otherwise, which ended ctx
			return
		case <-l.changed:
			v.again = true
		case <-wake:
			v.again = true
		case r := <-v.rounds:
			if v.take(r) {
				timer.Stop()
				return
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// advance enters the phase that the drain has come to, and returns when time
// alone may change it; zero when it cannot.
func (v *driver) advance(now time.Time) (until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.l
	if l.outcome != "" {
		return time.Time{}
	}
	phase, present, until := v.standing(now)
	if phase != l.phase {
		l.enter(phase, now)
		v.note("%s", phase)
		if phase == Draining {
			// Whoever was told of the pod at the last moment may only
			// now be arriving: what was quiet before does not count.
			v.quiet.since = time.Time{}
			v.nextAt = now
		}
		v.draining = phase == Draining
	}
	if phase == Draining {
		present = append(v.inFlight(), v.portInDoubt()...)
	}
	l.waits.become(present, now)
	l.present = present
	if now.Sub(v.toldAt) >= tellEvery {
		v.toldAt = now
		slog.Info("drain: "+l.waitingFor(now), "phase", phase)
	}
	return until
}

// standing tells the phase that the registries and the time allow, what is
// waited for, and when time alone may change that. Callers hold d.mu.
func (v *driver) standing(now time.Time) (phase Phase, present []waiting, until time.Time) {
	wait := func(what string) { present = append(present, waiting{what: what, text: what}) }
	waitUntil := func(t time.Time, what string) {
		present = append(present, waiting{what, what, t})
		if until.IsZero() || t.Before(until) {
			until = t
		}
	}
	phase = Draining
	for _, k := range v.keepers {
		switch forgotten := k.forgottenAt(); {
		case !k.tried:
			phase = Withdrawing
			wait(k.Name + " to be told")
		case k.withdrawnAt.IsZero():
			wait(k.Name + " to accept the withdrawal")
		case forgotten.IsZero():
			wait(k.Name + " to drop the pod from its answers")
		case now.Before(forgotten):
			waitUntil(forgotten, k.Name+"'s clients to refresh")
		}
	}
	if endpoints := v.l.began.Add(v.cfg.EndpointsWait); now.Before(endpoints) {
		waitUntil(endpoints, "endpoints")
	}
	if len(present) > 0 && phase == Draining {
		phase = Propagating
	}
	return phase, present, until
}

// portInDoubt is the wait for an app that nobody has ever seen to listen, while
// somebody else in the pod does: its work, or that of an app on another port,
// may be in flight. Callers hold d.mu.
func (v *driver) portInDoubt() []waiting {
	ports := v.portInDoubtLocked()
	if len(ports) == 0 {
		return nil
	}
	others := ""
	if len(v.otherPorts) > 0 {
		others = ", the pod listens on " + portList(v.otherPorts)
	}
	return []waiting{{
		what: "the app's port",
		text: fmt.Sprintf("somebody to listen on port %s of LASTCALL_APP_PORT, which nobody ever has%s", portList(ports), others),
	}}
}

// inFlight tells what work is waited for, by the last round. Callers hold d.mu.
func (v *driver) inFlight() []waiting {
	sum, known := inFlight(v.l.samples)
	var unreadable, work []waiting
	var busy []string
	over := sum > v.cfg.Threshold
	for _, s := range v.l.samples {
		switch {
		case s.err != nil:
			what := s.name + " to be readable"
			unreadable = append(unreadable, waiting{what: what, text: fmt.Sprintf("%s (%s)", what, clip(s.err.Error()))})
		case s.InFlight > 0 && over:
			work = append(work, waiting{what: "requests in flight: " + s.name})
			busy = append(busy, fmt.Sprintf("%s %d", s.name, s.InFlight))
		}
	}
	present := slices.Concat(work, unreadable)
	switch {
	case over:
		requests := "requests"
		if sum == 1 {
			requests = "request"
		}
		present[0].text = fmt.Sprintf("%d %s: %s", sum, requests, strings.Join(busy, ", "))
	case !known && len(present) == 0:
		const overflow = "a sum of the counters that is too large to be true"
		present = append(present, waiting{what: overflow, text: overflow})
	case known:
		present = append(present, waiting{what: "quiet", text: fmt.Sprintf("%v of quiet", v.cfg.Quiet)})
	}
	return present
}

// read begins a round when one is due.
func (v *driver) read(ctx context.Context, now time.Time) {
	soon := v.soonest()
	due := !now.Before(v.nextAt) || v.again && !now.Before(soon)
	if v.reading || !due {
		return
	}
	v.reading, v.again, v.lastAt = true, false, now
	v.goroutine(func() {
		r := v.readAll(ctx)
		if v.cfg.App != nil && allClosed(r.samples) {
			// An app that was killed has no connection open either.
			r.appListens, _ = v.look(ctx)
		}
		v.rounds <- r
	})
}

// soonest is when the next round may begin at the earliest.
func (v *driver) soonest() time.Time {
	if v.draining {
		return v.lastAt.Add(roundsApart)
	}
	return v.lastAt.Add(roundsApartEarly)
}

// nextLook is when the driver has something to do, should nothing happen.
func (v *driver) nextLook(until time.Time) time.Time {
	next := v.toldAt.Add(tellEvery)
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

// take takes a round in. It returns true when the pod has drained.
func (v *driver) take(r round) bool {
	now := time.Now()
	v.advance(now) // a registry may have listed the pod again meanwhile
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reading = false
	v.l.samples, v.l.roundAt = r.samples, r.began
	v.tellUnreadableLocked(r.samples)
	every := max(v.cfg.Poll, safetyNet)
	quiet := v.quiet.look(r, now)
	done := quiet
	if nobody := v.quiet.nobody(r); nobody && (v.cfg.App == nil || r.appListens) {
		done = true // for nobody there is no quiet time
	}
	if len(v.portInDoubtLocked()) > 0 {
		done = false
	}
	v.decideLocked(now)
	if v.l.phase == Draining && !v.notify {
		every = min(every, max(v.cfg.Poll, now.Sub(v.quiet.changed)/seldomer))
	}
	v.nextAt = r.began.Add(every)
	if v.l.phase != Draining {
		return v.l.outcome != ""
	}
	if r.began.Before(v.l.since) {
		// This round began before the phase: it proves nothing of it.
		v.quiet.since = time.Time{}
		v.nextAt = now
		return false
	}
	if v.l.outcome != "" {
		return true
	}
	if done && v.mayBeKilledLocked(v.l, now) {
		v.nextAt = now.Add(lookWhileLeaving)
		return false
	}
	if done {
		v.finishLocked(v.l, OutcomeDrained)
		return true
	}
	if due := v.quiet.due(); !quiet && !due.IsZero() && due.Before(v.nextAt) {
		v.nextAt = due
	}
	if calm := v.quiet.calm.Add(v.quiet.span); allClosed(r.samples) && calm.After(now) && calm.Before(v.nextAt) {
		v.nextAt = calm // nobody is left by then
	}
	return false
}
