package drain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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

// Drainer holds the state of the pod's drain. Its methods may be called at any
// time, by any number of goroutines, but for Run, which is called once.
type Drainer struct {
	cfg           Config
	registrations []*registration
	controls      []*acceptControl
	workers       []*worker // of all of these
	pollers       *pollers
	app           *appWatch

	ctx      context.Context // of all goroutines; ends when Run returns
	cancel   context.CancelFunc
	signaled chan struct{} // closed by the first signal
	aborted  chan struct{} // closed by the one that ends the drain at once
	appSeen  chan struct{} // receives when the app is gone, or back
	began    time.Time     // when New made it
	// listingChanged receives when the wait for registries to list the pod may be
	// over, or goes on.
	listingChanged chan struct{}
	servesAgain    chan struct{} // receives when a drain was taken back

	mu          sync.Mutex // guards everything that follows, and the parts above where they say so
	run         *drainRun  // nil while serving
	journal     *journal
	stopping    bool
	stoppedAt   time.Time // when the first signal came
	abortReason string    // why the drain was ended at once; empty: it was not
	closing     bool      // Run has returned or is about to: start nothing
	running     sync.WaitGroup
	totals      Totals
	lastReport  *Report // of the last drain that ended
	kubelet     kubelet
	notReady    bool // the app was last seen not to be ready, where that matters
}

// New returns a Drainer that serves. No plug-in is called before Run, but for
// an App's Ports and a ProbeIgnorer's IgnoreProbes.
func New(cfg Config) *Drainer {
	cfg.Threshold = max(0, cfg.Threshold)
	d := &Drainer{
		cfg:            cfg,
		signaled:       make(chan struct{}),
		aborted:        make(chan struct{}),
		appSeen:        make(chan struct{}, 1),
		listingChanged: make(chan struct{}, 1),
		servesAgain:    make(chan struct{}, 1),
		began:          time.Now(),
		journal:        &journal{observers: cfg.Observers},
		totals:         newTotals(),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.app = newAppWatch(&d.mu, cfg.App)
	d.app.lookedLocked = d.appLookedLocked
	d.pollers = &pollers{mu: &d.mu, worthReportingLocked: d.counterWorthReportingLocked}
	for _, r := range cfg.Registries {
		d.addRegistration(r)
	}
	for _, c := range cfg.Counters {
		d.pollers.all = append(d.pollers.all, newPoller(c))
		if control, ok := c.Counter.(AcceptStopper); ok {
			d.addControl(c.Name, "takes no new work", control)
		}
	}
	if cfg.Notice != nil {
		d.addControl("the app's notice", "written", noticeAdapter{cfg.Notice})
	}
	for _, a := range cfg.Kubelet {
		d.kubelet.fixed = append(d.kubelet.fixed, a.Unmap())
	}
	d.shareKubeletLocked() // nobody else has d yet
	return d
}

// Run keeps the registries, and returns when the process may end: a signal has
// come, the drain that it began or joined is over, and the instance is
// deregistered; by the end of the grace period at the latest. When ctx ends
// during a drain, that ends as by SIGINT; while the pod serves, nothing is
// withdrawn, and Run returns an error. It is called once.
//
// It returns ErrWorkLeft when work was in flight at the end, or might have been.
func (d *Drainer) Run(ctx context.Context) error {
	defer d.close()
	d.start()
	abort := func() { d.abort("the sidecar could no longer serve") }
	select {
	case <-d.signaled:
	case <-ctx.Done():
		if !d.Leaving() {
			return fmt.Errorf("ended while serving: %w", context.Cause(ctx))
		}
		abort()
	}
	unhook := context.AfterFunc(ctx, abort)
	defer unhook()

	signalledAt := time.Now()
	t, _ := d.confirm(d.ctx, d.trigger(CauseSignal))
	run := d.begin(t)
	select {
	case <-run.over:
	case <-d.aborted:
		d.finish(run, OutcomeCutShort)
	}
	left := d.workLeft(run)
	d.awaitApp(run)
	d.deregister(run, signalledAt)
	if left {
		return ErrWorkLeft
	}
	return nil
}

// Stop is SIGTERM: it begins a drain, or joins the one under way, after which
// Run returns. Any number of them is one: a container runtime that was
// restarted has forgotten that it sent it. It returns at once.
func (d *Drainer) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopLocked()
}

// Interrupt is SIGINT: while the pod serves it is as Stop, and during a drain
// it ends that at once. It returns at once.
func (d *Drainer) Interrupt() { d.abort("ended by SIGINT") }

// Begin begins a drain if none is under way, with the configured budget. It
// returns at once.
func (d *Drainer) Begin(cause Cause) { d.begin(d.trigger(cause)) }

// BeginWithin begins a drain by a call, with a budget of its own; Unbounded: it
// may take as long as it takes. It lengthens the budget of a drain under way,
// and never shortens it. The grace period limits every drain that a hook or a
// signal has begun or joined, or that one joins later: from its call on, that
// has the configured budget. It returns at once.
func (d *Drainer) BeginWithin(budget time.Duration) {
	t := d.trigger(CauseCall)
	t.budget = budget
	d.begin(t)
}

// PreStop is the kubelet's hook: it begins a drain, or joins the one under
// way, and returns its report when it has ended. One that ended within the
// same grace period is the same drain, whose report is returned at once: hooks
// are delivered at least once. So is the report of one that ended before, as
// drained, if a look shows that the pod is still gone from its registries and
// still quiet. A caller whose ctx ends gets its error; the drain goes on.
func (d *Drainer) PreStop(ctx context.Context) (Report, error) {
	arrived := d.hookArrived()
	t, run := d.confirm(ctx, arrived)
	if run == nil {
		run = d.hookCalled(t, arrived.at)
	}
	defer d.hookReturned(run)
	d.app.look(ctx) // before the hook returns: the app may exit at once
	select {
	case <-run.over:
		d.mu.Lock()
		defer d.mu.Unlock()
		return run.report, nil
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
	run := d.overtakeLocked()
	switch {
	case run == nil || !run.hooked || run.onRequest || d.stopping || d.closing:
	case run.hooks == 0:
		d.takeBackLocked(run, why)
	default:
		if !run.startedAt.After(run.hookAt) { // else this waits already
			time.AfterFunc(time.Until(d.noSignalAtLocked(run)), func() { d.takeBackUnlessHooked(run, why) })
		}
		run.startedAt = time.Now()
	}
}

// TakeBack takes the drain back: readiness is true again at once, and the
// instance is put back into its registries; it returns when that is done or
// ctx ends (what is not done then is still tried). It returns ErrServing when
// there is no drain, and ErrTooLate when the pod is being deleted.
func (d *Drainer) TakeBack(ctx context.Context) error {
	settled, err := d.takeBackOnRequest()
	for _, s := range settled {
		select {
		case <-s:
		case <-ctx.Done():
		}
	}
	return err
}

// Ready reports whether the pod takes new work.
func (d *Drainer) Ready() bool {
	ready, _ := d.Readiness()
	return ready
}

// Leaving reports whether there is a drain, under way or ended.
func (d *Drainer) Leaving() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.run != nil || d.stopping
}

// ProbedFrom records the address of a call to a probe's path that says it is the
// kubelet's. Once three have come from an address, counters that can
// ([ProbeIgnorer]) no longer count the kubelet's probes of the app. It returns
// at once.
func (d *Drainer) ProbedFrom(from netip.Addr) { d.kubeletAt(from, false) }

// HookedFrom does the same for a preStop hook; one call is enough.
func (d *Drainer) HookedFrom(from netip.Addr) { d.kubeletAt(from, true) }

// IsKubelet reports whether the kubelet is known to call from an address: by
// configuration, or as ProbedFrom and HookedFrom have learned.
func (d *Drainer) IsKubelet(addr netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kubelet.is(addr)
}

// Status returns the state now. While no drain is under way it reads the
// counters, for as long as ctx and the limit of one reading allow.
func (d *Drainer) Status(ctx context.Context) Status {
	readings := d.readings(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.statusLocked(readings, time.Now())
}

// Totals counts since the process began, for metrics. It reads the counters as
// Status does.
func (d *Drainer) Totals(ctx context.Context) Totals {
	readings := d.readings(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.totalsLocked(readings, time.Now())
}
