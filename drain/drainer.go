package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// The reasons for which a drain is not taken back.
var (
	ErrServing = errors.New("there is no drain to take back")
	ErrTooLate = errors.New("too late to take the drain back: the sidecar has been told to stop, so the pod is being deleted")
)

// ErrWorkLeft is Run's error when the process ends with work in flight.
var ErrWorkLeft = errors.New("cut short with work in flight")

// Drainer holds what the pod's leaving stands at. All methods may be called at
// any time, by any number of goroutines.
type Drainer struct {
	cfg     Config
	keepers []*keeper
	meters  []*meter
	valves  []*valve

	life    context.Context // of all goroutines; ends when Run returns
	die     context.CancelFunc
	stop    chan struct{} // closed by the first signal
	cut     chan struct{} // closed by the one that ends the drain at once
	appSeen chan struct{} // receives when the app is gone, or back
	looking chan struct{} // holds one token: who has it may look at the app
	lookNow chan struct{} // has the app looked at at once
	began   time.Time     // when New made it

	mu        sync.Mutex
	leaving   *leaving // nil while serving
	stopping  bool
	stoppedAt time.Time // when the first signal came
	isCut     bool
	cutWhy    string
	dying     bool           // Run has returned or is about to: start nothing
	running   sync.WaitGroup // the goroutines
	totals    Totals
	last      *Report // of the last drain that ended
	kubelet   kubelet

	app             listeners
	appStarted      time.Time // when the app was first seen to be started; zero: not yet
	appErr          string    // why the last look at the app failed; empty after a success
	hookDue         bool      // no look has begun since the last hook was called
	portsNamed      bool      // it was looked which other ports the pod listens on
	otherPorts      []int     // which those are
	otherPortsKnown bool
	silentTold      bool // people were told of ports that nobody listens on
}

// New returns a Drainer that serves. No plug-in is called before Run, but for
// an App's Ports.
func New(cfg Config) *Drainer {
	cfg.Threshold = max(0, cfg.Threshold)
	d := &Drainer{
		cfg:     cfg,
		stop:    make(chan struct{}),
		cut:     make(chan struct{}),
		appSeen: make(chan struct{}, 1),
		looking: make(chan struct{}, 1),
		lookNow: make(chan struct{}, 1),
		began:   time.Now(),
		totals:  newTotals(),
	}
	d.looking <- struct{}{}
	if cfg.App != nil {
		d.app = newListeners(cfg.App.Ports())
	}
	d.life, d.die = context.WithCancel(context.Background())
	for _, a := range cfg.Registries {
		d.keepers = append(d.keepers, newKeeper(d, a))
	}
	for _, n := range cfg.Counters {
		d.meters = append(d.meters, newMeter(n))
		if s, ok := n.Counter.(AcceptStopper); ok {
			v := newValve(d, n.Name, "takes no new work", s)
			_, v.unsure = n.Counter.(AcceptStarter) // an earlier process may have told it, and was killed
			d.valves = append(d.valves, v)
		}
	}
	for _, a := range cfg.Kubelet {
		d.kubelet.fixed = append(d.kubelet.fixed, a.Unmap())
	}
	d.shareKubeletLocked() // nobody else has d yet
	if cfg.Notice != nil {
		v := newValve(d, "the app's notice", "posted", posted{cfg.Notice})
		v.unsure = true // an earlier process may have posted it
		d.valves = append(d.valves, v)
	}
	return d
}

// goroutine runs f until it returns; f ends when d.life does.
func (d *Drainer) goroutine(f func()) { d.running.Go(f) }

// Run keeps the registries, and returns when the process may end: a signal has
// come, the drain that it began or joined is over, and the instance is
// deregistered; by the end of the grace period at the latest. When ctx ends
// during a drain, that ends as by SIGINT; while the pod serves, nothing is
// withdrawn, and Run returns an error.
//
// It returns ErrWorkLeft when work was in flight at the end, or might have been.
func (d *Drainer) Run(ctx context.Context) error {
	defer d.close()
	for _, k := range d.keepers {
		d.goroutine(func() { k.run(d.life) })
	}
	for _, v := range d.valves {
		d.goroutine(func() { v.run(d.life) })
	}
	for _, m := range d.meters {
		d.goroutine(func() { m.learn(d.life) })
	}
	if d.cfg.App != nil {
		d.goroutine(d.watchApp)
	}
	if len(d.meters) > 0 {
		d.goroutine(d.tryCounters)
	}
	interrupt := func() { d.interrupt("the sidecar could no longer serve") }
	select {
	case <-d.stop:
	case <-ctx.Done():
		if !d.Leaving() {
			return fmt.Errorf("ended while serving: %w", context.Cause(ctx))
		}
		interrupt()
	}
	unhook := context.AfterFunc(ctx, interrupt)
	defer unhook()

	told := time.Now()
	l := d.begin(CauseSignal)
	select {
	case <-l.over:
	case <-d.cut:
		d.finish(l, OutcomeCutShort)
	}
	left := d.workLeft(l)
	d.awaitApp(l)
	d.deregister(l, told)
	if left {
		return ErrWorkLeft
	}
	return nil
}

// close ends all goroutines, and waits for those that end when they are told:
// a plug-in that does not honour its context must not hold up the process.
func (d *Drainer) close() {
	d.mu.Lock()
	d.dying = true
	d.mu.Unlock()
	d.die()
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

// Stop is SIGTERM: it begins a drain, or joins the one under way, after which
// Run returns. Any number of them is one: a container runtime that was
// restarted has forgotten that it sent it.
func (d *Drainer) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopLocked()
}

// Interrupt is SIGINT: while the pod serves it is as Stop, and during a drain
// it ends that at once.
func (d *Drainer) Interrupt() { d.interrupt("ended by SIGINT") }

func (d *Drainer) interrupt(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if (d.leaving != nil || d.stopping) && !d.isCut {
		d.isCut, d.cutWhy = true, why
		close(d.cut)
	}
	d.stopLocked()
}

func (d *Drainer) stopLocked() {
	if d.stopping {
		return
	}
	d.stopping, d.stoppedAt = true, time.Now()
	close(d.stop)
	poke(d.lookNow)
}

// Begin begins a drain if none is under way.
func (d *Drainer) Begin(cause Cause) { d.begin(cause) }

// PreStop is the kubelet's hook: it begins a drain, or joins the one under
// way, and returns its report when it has ended. One that ended within the
// same grace period is the same drain, whose report is returned at once: hooks
// are delivered at least once. A caller whose ctx ends gets its error; the
// drain goes on.
func (d *Drainer) PreStop(ctx context.Context) (Report, error) {
	d.mu.Lock()
	l := d.beginLocked(CauseHook)
	d.hookLocked(l, time.Now())
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		l.hooks--
		d.decideLocked(time.Now())
		d.mu.Unlock()
	}()
	if d.cfg.App != nil {
		// Before the hook returns: the app may exit at once.
		d.look(ctx)
	}
	select {
	case <-l.over:
		d.mu.Lock()
		defer d.mu.Unlock()
		return l.report, nil
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
}

// PostStart is the app's postStart hook. An app that starts when no signal has
// come was restarted, by a kubelet that had called its preStop hook before:
// that drain is taken back. It returns at once. A drain that somebody asked
// for by a call is left to them. One that a preStop hook waits for may be
// another container's, or a kubelet has given that hook up: it is taken back
// when the grace period is over and no signal has come by then.
func (d *Drainer) PostStart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	const why = "the app's postStart hook was called: it was only restarted"
	l := d.leaving
	switch {
	case l == nil || !l.hooked || l.byHand || d.stopping || d.dying:
	case l.hooks == 0:
		d.takeBack(l, why)
	default:
		l.startedAt = time.Now()
		time.AfterFunc(time.Until(l.hookAt.Add(d.cfg.GracePeriod+signalMargin)), func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			overtaken := !l.startedAt.After(l.hookAt) // by another hook
			if d.leaving == l && !overtaken && !l.byHand && !d.stopping && !d.dying {
				d.takeBack(l, why)
			}
		})
	}
}

// TakeBack takes the drain back: readiness is true again at once, and the
// instance is put back into its registries; it returns when that is done or
// ctx ends (what is not done then is still tried). It returns ErrServing when
// there is no drain, and ErrTooLate when the pod is being deleted.
func (d *Drainer) TakeBack(ctx context.Context) error {
	d.mu.Lock()
	switch l := d.leaving; {
	case d.stopping:
		d.mu.Unlock()
		return ErrTooLate
	case l == nil:
		d.mu.Unlock()
		return ErrServing
	default:
		d.takeBack(l, "taken back on request")
	}
	var settled []chan struct{}
	for _, k := range d.keepers {
		settled = append(settled, k.settled)
	}
	d.mu.Unlock()
	for _, s := range settled {
		select {
		case <-s:
		case <-ctx.Done():
		}
	}
	return nil
}

// Ready reports whether the pod takes new work.
func (d *Drainer) Ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaving == nil && !d.stopping || d.cfg.StayReady
}

// Leaving reports whether there is a drain, under way or ended.
func (d *Drainer) Leaving() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaving != nil || d.stopping
}

// toldLate is how long after the end of the grace period a signal belongs to it.
// The kubelet tells a native sidecar to stop when the app has exited, and else
// when the grace period is over, in the moment in which it kills the app; the
// sidecar then has 2 s.
const toldLate = 2 * time.Second

// begin returns the drain under way, or a new one.
func (d *Drainer) begin(cause Cause) *leaving {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.beginLocked(cause)
}

// beginLocked returns the drain under way, or a new one. A drain that ended, and
// whose grace period is over, belongs to an earlier stop of the app: what
// begins after it is another. But not a signal that comes right then, or where
// the app has not come back since: the app took all of its grace period. After
// a signal's drain there is none: the process ends with it.
func (d *Drainer) beginLocked(cause Cause) *leaving {
	now := time.Now()
	byHand := cause == CauseCall
	if l := d.leaving; l != nil {
		graceEnd := later(l.graceEnd, l.hookAt.Add(d.cfg.GracePeriod)) // of a hook that was called again
		late := cause == CauseSignal && l.hooked && (d.app.gone() || now.Before(graceEnd.Add(toldLate)))
		if l.outcome == "" || now.Before(l.graceEnd) || late || l.final || d.dying {
			l.final = l.final || cause == CauseSignal
			l.byHand = l.byHand || byHand
			return l
		}
		byHand = byHand || l.byHand // whoever asked for it has not taken it back
		d.replace(l, now)
	}
	l := &leaving{
		cause:     cause,
		byHand:    byHand,
		final:     cause == CauseSignal,
		began:     now,
		budgetEnd: now.Add(d.cfg.Budget()),
		graceEnd:  now.Add(d.cfg.GracePeriod),
		changed:   make(chan struct{}, 1),
		over:      make(chan struct{}),
		phase:     Withdrawing,
		since:     now,
		waited:    map[Phase]time.Duration{},
	}
	drive, end := context.WithDeadline(d.life, l.budgetEnd)
	l.end = end
	if d.leaving == nil {
		d.totals.Seconds[Serving] += now.Sub(d.totals.since)
	}
	d.leaving = l // from here on the pod is not ready
	d.note("begun (%s); not ready", cause)
	d.emitLocked(EventDraining, "the pod leaves (%s): no longer ready; it may take %v to drain", cause, d.cfg.Budget())
	for _, k := range d.keepers {
		k.order(outOfService, l.budgetEnd)
	}
	for _, v := range d.valves {
		v.turn(true, l.budgetEnd)
	}
	if d.dying {
		d.cutWhy = "the process was ending"
		d.finishLocked(l, OutcomeCutShort)
		return l
	}
	d.goroutine(func() { d.drive(drive, l) })
	poke(d.lookNow)
	return l
}

// replace makes an end of a drain that has ended. Callers hold d.mu.
func (d *Drainer) replace(l *leaving, now time.Time) {
	d.totals.Seconds[l.phase] += now.Sub(l.since)
}

// takeBack ends a drain by serving again. Callers hold d.mu.
func (d *Drainer) takeBack(l *leaving, why string) {
	d.note("%s", why)
	now := time.Now()
	d.finishLocked(l, OutcomeTakenBack) // unless it had ended before
	d.emitLocked(EventTakenBack, "the drain was taken back after %s: %s", short(now.Sub(l.began)), why)
	d.replace(l, now)
	d.leaving = nil
	d.totals.since = now
	for _, k := range d.keepers {
		k.order(inService, time.Time{})
	}
	for _, v := range d.valves {
		v.turn(false, time.Time{})
	}
}

// finish ends a drain, once.
func (d *Drainer) finish(l *leaving, outcome Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finishLocked(l, outcome)
}

func (d *Drainer) finishLocked(l *leaving, outcome Outcome) {
	if l.outcome != "" {
		return
	}
	now := time.Now()
	l.waits.become(nil, now)
	l.outcome = outcome
	phase := Expired
	switch outcome {
	case OutcomeDrained:
		phase, l.present = Drained, nil
	case OutcomeTakenBack:
		phase, l.present = Serving, nil
	case OutcomeCutShort:
		l.why = d.cutWhy
	case OutcomeExpired:
	}
	l.enter(phase, now)
	took := now.Sub(l.began)
	ended := fmt.Sprintf("%s after %v", outcome, took.Round(time.Millisecond))
	if text := sentence(l.present, now); phase == Expired && text != "" {
		ended += ", " + text
	}
	if l.why != "" {
		l.mark(l.why)
	}
	l.mark(ended)
	if l.why != "" {
		ended += ": " + l.why
	}
	l.report = d.reportOf(l)
	d.last = &l.report
	d.tellEnd(l, took)
	d.totals.end(l, outcome, took)
	l.end()
	close(l.over)
	if phase == Expired {
		slog.Error("drain: "+ended, "outcome", outcome, "seconds", seconds(took))
		return
	}
	slog.Info("drain: "+ended, "outcome", outcome, "seconds", seconds(took))
}

// wakeDriver tells the driver that something has changed. Callers hold d.mu.
func (d *Drainer) wakeDriver() {
	if d.leaving != nil {
		poke(d.leaving.changed)
	}
}

// workLeft reports whether the drain ended with more in flight than accepted,
// by a last look, since a drain may be cut short before its first. Where the
// app's end has come first, it is what was in flight when it last listened.
func (d *Drainer) workLeft(l *leaving) bool {
	if l.outcome == OutcomeDrained {
		return false
	}
	if l.unfinished {
		sum, known := inFlight(l.samples)
		return !known || l.samples == nil && len(d.meters) > 0 || sum > d.cfg.Threshold
	}
	ctx, cancel := context.WithTimeout(d.life, d.cfg.leaveEarly()/2)
	defer cancel()
	sum, known := inFlight(d.readAll(ctx).samples)
	return !known || sum > d.cfg.Threshold
}
