package drain

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// appLookLimit is how long one look at the app's ports may take.
	appLookLimit = time.Second
	// lookWhileServing is how often it is looked who listens on the app's ports
	// while nothing depends on it.
	lookWhileServing = time.Second
	// lookWhileStarting is the same while nobody does: registries are asked for
	// the app's instance once somebody listens.
	lookWhileStarting = 500 * time.Millisecond
	// lookWhileLeaving is the same while a restart may end a drain, or the
	// app's end the process.
	lookWhileLeaving = 50 * time.Millisecond
	// silentFor is how long nobody may listen on a port before people are told
	// that it may be the wrong one.
	silentFor = time.Minute
	// namePortsEvery is how often it is looked which other ports the pod
	// listens on, while one of the app's is silent and that matters.
	namePortsEvery = time.Second
	// portsNamed bounds how many ports a text names.
	portsNamed = 12
	// signalMargin is how long after the end of the grace period a SIGTERM may
	// still come. The kubelet counts whole seconds, its clock began to run
	// earlier than ours, and a busy node is late.
	signalMargin = 5 * time.Second
)

// The moments around an app's end that tell a native sidecar's SIGTERM from a
// classic one's. See endUnfinishedLocked.
const (
	// shortestGrace is less than any grace period but zero: one second, as the
	// sidecar measures it.
	shortestGrace = 900 * time.Millisecond
	// killTakes is how long after a native sidecar's SIGTERM the app that is
	// killed with it may still be seen to listen.
	killTakes = time.Second
	// surelyLate is how long after the hook a classic sidecar's SIGTERM does not
	// come, where there is no listener to tell by, or the app still listens.
	surelyLate = 2 * time.Second
	// lastReadingWithin is how long the counters have to tell whether an app
	// that does not listen still works.
	lastReadingWithin = 500 * time.Millisecond
	// killedAfter is how long after a SIGTERM that comes with the app's end the
	// process has, with what it takes to hand on the last events left out: the
	// kubelet allows 2 s.
	killedAfter = 1200 * time.Millisecond
)

// watchApp looks who listens on the app's ports for as long as the process
// lives: before a drain too, so that a new start is seen by who listens, and
// not by a moment in which nobody does.
func (d *Drainer) watchApp() {
	var named time.Time
	for d.life.Err() == nil {
		d.look(d.life)
		if d.portNamesDue(named) {
			named = time.Now()
			d.namePorts()
		}
		d.mu.Lock()
		d.tellSilentLocked(time.Now())
		every := d.lookEveryLocked()
		d.mu.Unlock()
		pause(d.life, every, d.lookNow)
	}
}

// lookEveryLocked is how long to wait between two looks.
func (d *Drainer) lookEveryLocked() time.Duration {
	l := d.leaving
	if d.stopping || l != nil && l.hooked && !l.byHand {
		return lookWhileLeaving
	}
	if !d.app.any() {
		return lookWhileStarting
	}
	return lookWhileServing
}

// look looks who listens on the app's ports, one look at a time, and takes in
// what it has shown. It reports whether somebody listens, and whether that is
// known.
func (d *Drainer) look(ctx context.Context) (listening, known bool) {
	limited, cancel := context.WithTimeout(ctx, appLookLimit)
	defer cancel()
	select {
	case <-d.looking:
		defer func() { d.looking <- struct{}{} }()
	case <-limited.Done():
		return false, false
	}
	at := time.Now()
	var now map[int][]uint64
	err := guard("the look at the app's ports", func() (err error) {
		now, err = d.cfg.App.Listeners(limited)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return false, false // called off: that says nothing of the app
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookedLocked(at, now, err)
	return d.app.any(), d.app.known
}

// lookedLocked takes in a look that began at the time at.
func (d *Drainer) lookedLocked(at time.Time, now map[int][]uint64, err error) {
	l := d.leaving
	if err != nil {
		if d.appErr == "" {
			slog.Warn("app: cannot look who listens on LASTCALL_APP_PORT: until that works, a restart of the app cannot be told from the pod's deletion, nor can it be seen when the app is gone; it is taken as if it listened",
				"error", err)
		}
		d.appErr = clip(err.Error())
		d.app.failed()
	} else {
		if d.appErr != "" {
			d.appErr = ""
			slog.Info("app: who listens on LASTCALL_APP_PORT can be seen again")
		}
		if d.app.look(at, now) > 0 {
			if d.appStarted.IsZero() {
				d.appStarted = at
			}
			for _, k := range d.keepers {
				k.appStarted()
			}
		}
		if l != nil && d.hookDue && !at.Before(l.hookAt) {
			d.hookDue = false
			d.app.hookLooked()
		}
	}
	if l == nil {
		return
	}
	if gone := d.app.gone(); gone != l.appGone {
		l.appGone = gone
		switch {
		case gone:
			d.note("the app does not listen")
		case d.app.known:
			d.note("the app listens again")
		}
		poke(d.appSeen)
	}
	if d.app.any() && l.outcome == "" {
		l.samplesAlive, l.presentAlive = l.samples, l.present
	}
	d.decideLocked(time.Now())
}

// hookLocked takes in that a preStop hook is called. From here on the port's
// listeners of this moment are what a restart is told by.
func (d *Drainer) hookLocked(l *leaving, now time.Time) {
	l.hooked = true
	l.hooks++
	l.hookAt = now
	d.app.hook()
	d.hookDue = true
	poke(d.lookNow)
}

// decideLocked decides whether the pod is going or its app was only restarted.
// It is asked at every look, so that each hook ends in a decision, whether it
// has returned, has broken off or was given up by a kubelet that leaves the
// request open:
//
//   - SIGTERM has come: the pod goes, for good. Left to decide is whether the
//     drain's end has come with it.
//   - A port that was listened on when the hook was called is listened on anew:
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
	l := d.leaving
	switch {
	case l == nil || d.dying:
		return
	case d.stopping:
		d.endUnfinishedLocked(l, now)
		return
	case !l.hooked || l.byHand:
		return
	}
	started := d.app.restarted()
	switch {
	case len(started) > 0 && l.hooks <= len(started):
		d.takeBack(l, "the app was only restarted: it listens anew on port "+portList(started))
	case now.Before(l.hookAt.Add(d.cfg.GracePeriod + signalMargin)):
	case d.app.back():
		d.takeBack(l, fmt.Sprintf("the app listens, and no SIGTERM has come %v after the hook, when the grace period of %v was long over: the pod is not being deleted",
			now.Sub(l.hookAt).Round(time.Second), d.cfg.GracePeriod))
	}
}

// endUnfinishedLocked ends a drain under way when the app's end has come before
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
func (d *Drainer) endUnfinishedLocked(l *leaving, now time.Time) {
	if l.outcome != "" || !l.hooked {
		return
	}
	late := d.stoppedAt.Sub(l.hookAt)
	if !d.app.gone() {
		if late >= surelyLate && now.Sub(d.stoppedAt) >= killTakes {
			l.unfinished = true
			l.why = fmt.Sprintf("the sidecar was told to stop in the middle of the drain, and the app is about to be killed: the pod's grace period is shorter than LASTCALL_GRACE_PERIOD=%v, or this deletion allowed less (--grace-period, eviction, node shutdown)", d.cfg.GracePeriod)
			d.finishLocked(l, OutcomeExpired)
		}
		return
	}
	gone := d.app.goneAt
	works := !l.roundAt.Before(gone) && slices.ContainsFunc(l.samples, func(s sample) bool { return s.err == nil && s.HasOpen && s.InFlight > 0 })
	l.worksUnheard = l.worksUnheard || works
	switch {
	case !d.app.ever():
		if late < surelyLate {
			return
		}
		gone = d.stoppedAt
	case late >= shortestGrace && !gone.After(d.stoppedAt.Add(killTakes)):
	case len(d.valves) == 0 && !l.worksUnheard && gone.Sub(l.hookAt) >= shortestGrace && now.Sub(gone) >= 2*lookWhileLeaving:
	default:
		return
	}
	if l.roundAt.Before(gone) && now.Before(gone.Add(lastReadingWithin)) {
		poke(l.changed) // the driver reads the counters
		return
	}
	if works {
		return
	}
	// What was in flight when the app was last seen is what was cut off.
	if d.app.ever() {
		l.samples, l.present = l.samplesAlive, l.presentAlive
	}
	l.unfinished = true
	l.why = fmt.Sprintf("the sidecar was told to stop and the app is gone before the drain has ended: the pod's grace period is shorter than LASTCALL_GRACE_PERIOD=%v, this deletion allowed less (--grace-period, eviction, node shutdown), or the app has ended by itself", d.cfg.GracePeriod)
	d.finishLocked(l, OutcomeExpired)
}

// mayBeKilledLocked reports whether the app may be ending under a drain that
// looks as if it had ended well: a SIGTERM has just come that is not a classic
// sidecar's, and the app's connections end with it.
func (d *Drainer) mayBeKilledLocked(l *leaving, now time.Time) bool {
	return d.cfg.App != nil && d.stopping && l.hooked && d.stoppedAt.Sub(l.hookAt) >= shortestGrace && now.Before(d.stoppedAt.Add(killTakes+2*lookWhileLeaving))
}

// portNamesDue reports whether it is to be looked which other ports the pod
// listens on.
func (d *Drainer) portNamesDue(named time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	matters := d.leaving != nil && d.leaving.outcome == "" || !d.silentTold && now.Sub(d.began) >= silentFor
	return matters && len(d.app.silent()) > 0 && (named.IsZero() || now.Sub(named) >= namePortsEvery)
}

// namePorts looks which other ports the pod listens on.
func (d *Drainer) namePorts() {
	ctx, cancel := context.WithTimeout(d.life, appLookLimit)
	defer cancel()
	var ports []int
	err := guard("the look at the pod's ports", func() (err error) {
		ports, err = d.cfg.App.OtherPorts(ctx)
		return err
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.otherPorts, d.otherPortsKnown, d.portsNamed = ports, err == nil, true
	d.wakeDriver()
}

// tellSilentLocked tells people once of ports that nobody has listened on for a
// minute, and once in a drain.
func (d *Drainer) tellSilentLocked(now time.Time) {
	silent := d.app.silent()
	if len(silent) == 0 || !d.portsNamed {
		return
	}
	l := d.leaving
	switch {
	case l != nil && l.outcome == "" && !l.silentTold:
		l.silentTold, d.silentTold = true, true
		l.mark(d.silentTextLocked(silent))
	case l == nil && !d.silentTold && now.Sub(d.began) >= silentFor:
		d.silentTold = true
	default:
		return
	}
	text := d.silentTextLocked(silent)
	slog.Warn("app: " + text)
	d.emitLocked(EventPortSilent, "%s", text)
}

// silentTextLocked says in a sentence which ports are silent, and on which the
// pod listens.
func (d *Drainer) silentTextLocked(silent []int) string {
	others := "it cannot be seen on which others the pod listens"
	switch {
	case d.otherPortsKnown && len(d.otherPorts) == 0:
		others = "the pod listens on no other"
	case d.otherPortsKnown:
		others = "the pod listens on " + portList(d.otherPorts)
	}
	return fmt.Sprintf("nobody has ever listened on port %s of LASTCALL_APP_PORT: the app has not started, or the port is wrong; %s", portList(silent), others)
}

// portInDoubtLocked returns the ports whose work the drain may not see: nobody
// has ever listened on them, and the pod listens on others. Where it listens on
// no other, there is nobody whose work could be missed.
func (d *Drainer) portInDoubtLocked() []int {
	if d.cfg.App == nil || d.otherPortsKnown && len(d.otherPorts) == 0 {
		return nil
	}
	return d.app.silent()
}

// portList is ports as people read them, not too many.
func portList(ports []int) string {
	var texts []string
	for i, port := range ports {
		if i == portsNamed {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, strconv.Itoa(port))
	}
	return strings.Join(texts, ", ")
}

// warningsLocked returns what people should mend, one sentence each.
func (d *Drainer) warningsLocked() (warnings []string) {
	if d.cfg.App == nil {
		return nil
	}
	if silent := d.app.silent(); len(silent) > 0 && d.silentTold {
		warnings = append(warnings, d.silentTextLocked(silent))
	}
	if d.appErr != "" {
		warnings = append(warnings, "it cannot be seen who listens on LASTCALL_APP_PORT, so a restart of the app cannot be told from the pod's deletion: "+d.appErr)
	}
	return warnings
}

// lastMoment is when the process sees to its last things, whether the app is
// gone or not.
func (d *Drainer) lastMoment(l *leaving) time.Time {
	return l.graceEnd.Add(-d.cfg.leaveEarly())
}

// awaitApp returns when the app is gone, SIGINT has come, or the grace period
// is about to end. Where the app's port is not known, there is only a registry
// to wait for: its app would register itself again.
func (d *Drainer) awaitApp(l *leaving) {
	if l.unfinished || d.cfg.App == nil && len(d.keepers) == 0 {
		return
	}
	timer := time.NewTimer(time.Until(d.lastMoment(l)))
	defer timer.Stop()
	for {
		d.mu.Lock()
		gone := d.app.gone()
		d.mu.Unlock()
		if gone {
			return
		}
		select {
		case <-timer.C:
			return
		case <-d.cut:
			return
		case <-d.appSeen:
		}
	}
}

// mayDeregister reports, by a look of its own, whether the app is gone or the
// grace period is about to end. A registry client in a live app would register
// itself again.
func (d *Drainer) mayDeregister(ctx context.Context) bool {
	d.mu.Lock()
	l := d.leaving
	d.mu.Unlock()
	if l == nil {
		return false
	}
	if !time.Now().Before(d.lastMoment(l)) {
		return true
	}
	if d.cfg.App == nil {
		return false
	}
	listening, known := d.look(ctx)
	return known && !listening
}

// deregister removes the instance from its registries. It returns by the end
// of the grace period, or a second after it where the sidecar was told to stop
// only then; within what is left where the app's end has come early; at once
// when SIGINT has come while the app lives.
func (d *Drainer) deregister(l *leaving, told time.Time) {
	if len(d.keepers) == 0 {
		return
	}
	end := l.graceEnd.Add(-d.cfg.leaveEarly() / 5)
	switch now := time.Now(); {
	case l.unfinished:
		end = later(told.Add(killedAfter), now.Add(d.cfg.leaveEarly()/5))
	case told.After(d.lastMoment(l)):
		end = now.Add(d.cfg.leaveEarly()) // it has 2 s from then, in any case
	}
	if isClosed(d.cut) {
		if !d.mayDeregister(d.life) {
			slog.Warn("drain: ended by SIGINT while the app lives: it stays in its registries, out of service")
			return
		}
		if soon := time.Now().Add(d.cfg.leaveEarly()); soon.Before(end) {
			end = soon
		}
	}
	d.mu.Lock()
	var settled []chan struct{}
	for _, k := range d.keepers {
		k.order(deregistered, end)
		settled = append(settled, k.settled)
	}
	d.mu.Unlock()
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for i, s := range settled {
		select {
		case <-s:
		case <-timer.C:
			timer.Reset(0)
			if !isClosed(s) {
				slog.Error("drain: not deregistered in time; the registry drops the instance when its lease ends", "registry", d.keepers[i].Name)
			}
		}
	}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
