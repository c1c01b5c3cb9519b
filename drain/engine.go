package drain

import (
	"context"
	"log/slog"
	"net/netip"
	"time"
)

// addRegistration makes the registration of a registry.
func (d *Drainer) addRegistration(n NamedRegistry) {
	r := &registration{
		NamedRegistry:        n,
		journal:              d.journal,
		notifyDriverLocked:   d.notifyDriverLocked,
		appGone:              d.mayDeregister,
		appMayRegisterLocked: d.appMayRegisterLocked,
		listedLocked:         d.listedLocked,
		limit:                callLimit,
		settled:              make(chan struct{}),
		retry:                backoff{first: 100 * time.Millisecond, most: 2 * time.Second},
		ask:                  backoff{first: 50 * time.Millisecond, most: askAtLeastEvery},
	}
	if l, ok := n.Registry.(CallLimiter); ok {
		r.limit = l.CallLimit()
	}
	if l, ok := n.Registry.(ListReporter); ok {
		r.unlisted = !l.Lists()
	}
	r.listing = listing{awaited: d.cfg.ReadyWhenListed && !r.unlisted, from: d.began}
	if c, ok := n.Registry.(ChangeNotifier); ok {
		r.changes = c.Changes()
	}
	_, r.presence.unknown = n.Registry.(Locator) // until it is found
	r.registerOurselves()
	r.worker = newWorker(&d.mu, r)
	d.registrations, d.workers = append(d.registrations, r), append(d.workers, r.worker)
}

// addControl makes the accept control of a proxy or notice. An earlier process
// may have been killed in its drain, so the state is uncertain at start, and is
// undone if it can be.
func (d *Drainer) addControl(name, done string, control AcceptStopper) {
	a := &acceptControl{
		name: name, done: done, control: control,
		journal: d.journal,
		state:   uncertain,
		retry:   backoff{first: 100 * time.Millisecond, most: 2 * time.Second},
	}
	a.worker = newWorker(&d.mu, a)
	d.controls, d.workers = append(d.controls, a), append(d.workers, a.worker)
}

// start runs what runs for as long as the process lives.
func (d *Drainer) start() {
	for _, w := range d.workers {
		d.spawn(func() { w.run(d.ctx) })
	}
	for _, r := range d.registrations {
		if r.changes != nil {
			d.spawn(func() { r.watchChanges(d.ctx) })
		}
	}
	for _, p := range d.pollers.all {
		d.spawn(func() { p.learn(d.ctx) })
	}
	if d.cfg.ReadyWhenListed {
		d.spawn(d.awaitListed)
	}
	if d.cfg.App != nil {
		d.spawn(d.watchApp)
	}
	d.startWatchingReady()
	if len(d.pollers.all) > 0 {
		d.spawn(d.tryCounters)
	}
}

// spawn runs f until it returns; f ends when d.ctx does.
func (d *Drainer) spawn(f func()) { d.running.Go(f) }

// begin returns the drain under way, or a new one.
func (d *Drainer) begin(t trigger) *drainRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.beginLocked(t)
}

// beginLocked returns the drain that a trigger joins, or a new one.
func (d *Drainer) beginLocked(t trigger) *drainRun {
	d.overtakeLocked() // hooks that wait came first
	now := time.Now()
	run := newDrainRun(t, &d.cfg, now)
	if last := d.run; last != nil {
		if d.joinsLocked(t, last) {
			d.joinLocked(t, last)
			return last
		}
		run.onRequest = run.onRequest || last.onRequest // whoever asked for it has not taken it back
	}
	d.leavePhaseLocked(now)
	d.run = run // from here on the pod is not ready
	d.journal.timeline = run.timeline
	d.journal.noteLocked("begun (%s); not ready", t.cause)
	d.journal.emitLocked(EventDraining, "the pod leaves (%s): no longer ready; it may take %s to drain", t.cause, budgetText(run.budget()))
	d.retargetLocked(outOfService, run.keepUntil())
	for _, c := range d.controls {
		c.setLocked(true, run.keepUntil())
	}
	if d.closing {
		d.abortReason = "the process was ending"
		d.finishLocked(run, OutcomeCutShort)
		return run
	}
	d.driveLocked(run)
	notify(d.app.soon)
	return run
}

// driveLocked starts the driver of a drain.
func (d *Drainer) driveLocked(run *drainRun) {
	ctx, cancel := context.WithCancel(d.ctx)
	run.cancel = cancel
	v := &driver{
		mu: &d.mu, cfg: &d.cfg, run: run, journal: d.journal, spawn: d.spawn,
		registrations: d.registrations, pollers: d.pollers, app: d.app,
		finishLocked: d.finishLocked, decideLocked: d.decideLocked, mayBeKilledLocked: d.mayBeKilledLocked,
	}
	d.spawn(func() { v.drive(ctx) })
}

// leavePhaseLocked books the time in the phase that another drain or service
// takes the place of.
func (d *Drainer) leavePhaseLocked(now time.Time) {
	if d.run == nil {
		d.totals.Seconds[Serving] += now.Sub(d.totals.since)
		return
	}
	d.totals.Seconds[d.run.phase] += now.Sub(d.run.since)
}

// takeBackOnRequest takes the drain back for somebody who has asked for that,
// and returns what is closed when each registry lists the pod again.
func (d *Drainer) takeBackOnRequest() (settled []chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.stopping:
		return nil, ErrTooLate
	case d.run == nil:
		return nil, ErrServing
	}
	d.takeBackLocked(d.overtakeLocked(), "taken back on request")
	return d.settledLocked(), nil
}

// takeBackUnlessHooked takes a drain back that is still the present one, unless
// a preStop hook was called since the app's start.
func (d *Drainer) takeBackUnlessHooked(run *drainRun, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	overtaken := !run.startedAt.After(run.hookAt) // by another hook
	if d.run == run && !overtaken && !run.onRequest && !d.stopping && !d.closing {
		d.takeBackLocked(run, why)
	}
}

// takeBackLocked ends a drain by serving again.
func (d *Drainer) takeBackLocked(run *drainRun, why string) {
	d.journal.noteLocked("%s", why)
	now := time.Now()
	d.finishLocked(run, OutcomeTakenBack) // unless it had ended before
	d.journal.emitLocked(EventTakenBack, "the drain was taken back after %s: %s", short(now.Sub(run.began)), why)
	d.leavePhaseLocked(now)
	d.run, d.journal.timeline = nil, nil
	d.totals.since = now
	notify(d.listingChanged)
	notify(d.servesAgain)
	notify(d.app.soon)
	d.retargetLocked(inService, time.Time{})
	for _, c := range d.controls {
		c.setLocked(false, time.Time{})
	}
}

// finish ends a drain, once.
func (d *Drainer) finish(run *drainRun, outcome Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finishLocked(run, outcome)
}

func (d *Drainer) finishLocked(run *drainRun, outcome Outcome) {
	if run.outcome != "" {
		return
	}
	if outcome == OutcomeCutShort {
		run.why = d.abortReason
	}
	now := time.Now()
	text := run.end(outcome, now)
	run.report = d.reportLocked(run, now)
	d.lastReport = &run.report
	took := now.Sub(run.began)
	d.emitEndLocked(run, took)
	d.totals.end(run, outcome, took)
	if run.cancel != nil {
		run.cancel()
	}
	close(run.over)
	level := slog.LevelInfo
	switch {
	case run.phase == Expired:
		level = slog.LevelError
	case outcome == OutcomeNotFound:
		level = slog.LevelWarn
	}
	slog.Log(context.Background(), level, "drain: "+text, "outcome", outcome, "seconds", seconds(took))
}

// hookArrived records that a preStop hook is called: what listens again from here on
// was restarted. It returns its trigger.
func (d *Drainer) hookArrived() trigger {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trigger(CauseHook)
	d.app.hookLocked(t.at)
	return t
}

// hookCalled begins or joins the drain of a preStop hook that arrived at the time
// at, and returns it.
func (d *Drainer) hookCalled(t trigger, at time.Time) *drainRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	run := d.beginLocked(t)
	run.hooked = true
	run.hooks++
	run.hookAt = later(run.hookAt, at)
	return run
}

// hookReturned records that a preStop hook has its answer, or has broken off.
func (d *Drainer) hookReturned(run *drainRun) {
	d.mu.Lock()
	defer d.mu.Unlock()
	run.hooks--
	d.decideLocked(time.Now())
}

// abort ends a drain at once, and is a signal to stop in any case.
func (d *Drainer) abort(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if (d.run != nil || d.stopping) && d.abortReason == "" {
		d.abortReason = why
		close(d.aborted)
	}
	d.stopLocked()
}

func (d *Drainer) stopLocked() {
	if d.stopping {
		return
	}
	d.stopping, d.stoppedAt = true, time.Now()
	close(d.signaled)
	notify(d.app.soon)
}

// notifyDriverLocked wakes the driver: something has changed.
func (d *Drainer) notifyDriverLocked() {
	if d.run != nil {
		notify(d.run.changed)
	}
}

// kubeletAt records the address of a call that says it is the kubelet's.
func (d *Drainer) kubeletAt(from netip.Addr, sure bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from = from.Unmap()
	if d.kubelet.called(from, sure, time.Now()) {
		slog.Debug("drain: the kubelet's address is known", "address", from.String())
		d.shareKubeletLocked()
	}
}

// shareKubeletLocked hands the kubelet's addresses to the counters.
func (d *Drainer) shareKubeletLocked() {
	all := d.kubelet.addresses()
	for _, p := range d.pollers.all {
		if i, ok := p.Counter.(ProbeIgnorer); ok {
			if err := guard(p.Name+" counter", func() error { i.IgnoreProbes(all); return nil }); err != nil {
				slog.Error("counter: cannot be told which calls are the kubelet's, and counts them", "counter", p.Name, "error", err)
			}
		}
	}
}
