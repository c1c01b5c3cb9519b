package drain

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

const (
	// watchEvery is how often a registry that has dropped the instance is
	// asked whether that is still so: an app's client can register it again.
	watchEvery = time.Second
	// askAtLeastEvery is how often a registry that still lists the instance is
	// asked whether it does, at least: half of it is lost on average when its
	// cache turns over.
	askAtLeastEvery = 250 * time.Millisecond
	// tellAgainEvery is how often a registry that still lists the instance is
	// told again to withdraw it: it may have forgotten.
	tellAgainEvery = 5 * time.Second
	// restoreAgainEvery is the same for an instance that was put back.
	restoreAgainEvery = 30 * time.Second
	// findFor is how long an instance that was found is looked up again and
	// again: what was there first may be an earlier pod's registration, which
	// the app's own replaces when it has started.
	findFor = 5 * time.Minute
	// findAgainAfter is when, the first time; then the wait doubles.
	findAgainAfter = 30 * time.Second
	// findOften is how long it is looked up often once the app listens: it
	// registers now, under an id that may be an earlier pod's, whose withdrawal
	// keeps it out of service until it is found.
	findOften = 30 * time.Second
	// confirmFor is how long a registry that was told to list the instance
	// again is asked often whether it does; after that, now and then.
	confirmFor = 5 * time.Minute
	// unreachableAfter is how many calls in a row must fail before people are
	// told: one that fails once is of no interest to them.
	unreachableAfter = 2
)

// place is where a registry should hold the pod's instance.
type place int

const (
	inService place = iota
	outOfService
	deregistered
)

// A keeper brings one registry to the place that it is ordered to, one call at
// a time, with retries, and sees that it stays there.
type keeper struct {
	NamedRegistry
	d    *Drainer
	kick chan struct{} // a new order has come

	// What follows is guarded by d.mu.
	want place
	// generation grows with each order: a call that an earlier one has made does
	// not count for this one.
	generation uint64
	until      time.Time // the order's calls end by then; zero: no limit
	// settled is closed when the order has been carried out, or another has
	// taken its place.
	settled chan struct{}
	drop    context.CancelFunc // ends the call under way; nil when there is none
	mustEnd bool               // the call under way is not to be dropped

	found      string    // what Find last found
	foundAt    time.Time // when it first did; zero: not yet
	findAt     time.Time // when Find is due again; zero: now
	findTries  int       // calls of Find in a row after each of which another is due soon
	startedAt  time.Time // when the app was seen to start, or a drain was taken back; zero: not yet
	told       bool      // the registry may hold a withdrawal of ours
	confirming time.Time // when the instance was put back, until that is seen
	restoredAt time.Time // the last Restore that succeeded
	doubted    bool      // the log was told that it takes long

	tried       bool      // the first Withdraw of this drain is over
	withdrawnAt time.Time // the first Withdraw of this drain that succeeded
	tellAgainAt time.Time // when Withdraw is due again
	goneAt      time.Time // since when the instance has been seen gone
	calls       map[string]*CallCount
	failures    int    // in this drain
	inARow      int    // the last ones of them, since a success
	unreachable bool   // the observers have been told so, in this drain
	lastErr     string // of the last call; empty after a success

	retry, ask backoff
}

func newKeeper(d *Drainer, a NamedRegistry) *keeper {
	return &keeper{
		NamedRegistry: a,
		d:             d,
		kick:          make(chan struct{}, 1),
		settled:       make(chan struct{}),
		calls:         map[string]*CallCount{},
		retry:         backoff{first: 100 * time.Millisecond, most: 2 * time.Second},
		ask:           backoff{first: 50 * time.Millisecond, most: askAtLeastEvery},
	}
}

// order sends the keeper to a place. Callers hold d.mu.
//
// A call under way is dropped, but for a Withdraw when the instance goes back
// into service: a server that has read it would carry it out after the
// Restore. It ends by its own limit.
func (k *keeper) order(want place, until time.Time) {
	if k.want == outOfService && want == inService {
		k.found = "" // it is out of date
		k.appStarted()
	}
	if !isClosed(k.settled) {
		close(k.settled) // nobody will carry that order out
	}
	k.want, k.until = want, until
	k.generation++
	k.settled = make(chan struct{})
	if want == inService && !k.told {
		close(k.settled) // there is nothing to undo
	}
	k.retry.reset()
	k.ask.reset()
	if want == outOfService {
		k.tried, k.failures, k.inARow, k.lastErr = false, 0, 0, ""
		k.unreachable = false
		k.withdrawnAt, k.tellAgainAt, k.goneAt = time.Time{}, time.Time{}, time.Time{}
		k.confirming = time.Time{}
	}
	if k.drop != nil && (!k.mustEnd || want == deregistered) {
		k.drop()
	}
	poke(k.kick)
}

// run keeps until ctx ends.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, k.step(ctx), k.kick)
	}
}

// step makes the next call, if one is due, and returns how long to wait until
// the one after it; negative: until there is a new order.
func (k *keeper) step(ctx context.Context) time.Duration {
	k.d.mu.Lock()
	want, until, settled := k.want, k.until, isClosed(k.settled)
	k.d.mu.Unlock()
	switch {
	case !until.IsZero() && !time.Now().Before(until):
		return -1
	case want == outOfService:
		return k.withdraw(ctx)
	case want == deregistered && !settled:
		return k.deregister(ctx)
	case want == deregistered:
		return -1
	}
	return k.serve(ctx)
}

func (k *keeper) withdraw(ctx context.Context) time.Duration {
	k.d.mu.Lock()
	due := !time.Now().Before(k.tellAgainAt)
	k.told = true
	k.d.mu.Unlock()
	if due {
		current, err := k.call(ctx, "withdraw", outOfService, k.Registry.Withdraw)
		k.d.mu.Lock()
		defer k.d.mu.Unlock()
		if !current {
			return 0
		}
		k.tried = true
		defer k.d.wakeDriver()
		if err != nil {
			return k.retry.wait()
		}
		k.retry.reset()
		k.tellAgainAt = time.Now().Add(tellAgainEvery)
		if k.withdrawnAt.IsZero() {
			k.withdrawnAt = time.Now()
			k.d.note("%s: withdrawn", k.Name)
		}
		return 0
	}

	gone, current, err := k.askWithdrawn(ctx, outOfService)
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	switch {
	case !current:
		return 0
	case err != nil:
		return k.retry.wait()
	case gone:
		k.retry.reset()
		k.tellAgainAt = time.Now().Add(tellAgainEvery + watchEvery) // only asked from now on
		if k.goneAt.IsZero() {
			k.goneAt = time.Now()
			k.d.note("%s: no longer lists the pod; its clients forget it within %v", k.Name, k.ClientRefresh)
			k.d.tellWithdrawn(k)
			k.d.wakeDriver()
		}
		return watchEvery
	case !k.goneAt.IsZero():
		k.goneAt, k.tellAgainAt = time.Time{}, time.Time{}
		k.ask.reset()
		k.d.note("%s: lists the pod again; withdrawing it again", k.Name)
		k.d.wakeDriver()
		return 0
	}
	return k.ask.wait()
}

func (k *keeper) serve(ctx context.Context) time.Duration {
	k.d.mu.Lock()
	told, confirming, findAt := k.told, !k.confirming.IsZero(), k.findAt
	found := !k.foundAt.IsZero() && time.Since(k.foundAt) > findFor
	k.d.mu.Unlock()
	if told {
		return k.restore(ctx)
	}
	next := time.Duration(-1)
	if finder, canFind := k.Registry.(Finder); canFind && !found {
		if !time.Now().Before(findAt) {
			k.find(ctx, finder)
			return 0
		}
		next = time.Until(findAt)
	}
	if confirming {
		again := k.confirm(ctx)
		if next < 0 || again < next {
			next = again
		}
	}
	return next
}

func (k *keeper) restore(ctx context.Context) time.Duration {
	current, err := k.call(ctx, "restore", inService, k.Registry.Restore)
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	switch {
	case !current:
		return 0
	case err != nil:
		return k.retry.wait()
	}
	k.retry.reset()
	k.told = false
	k.restoredAt = time.Now()
	if k.confirming.IsZero() {
		k.confirming, k.doubted = k.restoredAt, false
	}
	if !isClosed(k.settled) {
		close(k.settled)
		slog.Info("registry: put back into service", "registry", k.Name)
	}
	return 0
}

// confirm asks until the registry is seen to list the instance again. An
// answer from before its cache has turned over proves nothing: it may be older
// than the withdrawal.
func (k *keeper) confirm(ctx context.Context) time.Duration {
	gone, current, err := k.askWithdrawn(ctx, inService)
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	switch {
	case !current:
		return 0
	case err == nil && !gone && time.Since(k.restoredAt) < k.ServerCache:
		return watchEvery
	case err == nil && !gone:
		k.confirming = time.Time{}
		slog.Info("registry: lists the pod again", "registry", k.Name)
		return 0
	case err == nil && time.Since(k.restoredAt) >= restoreAgainEvery:
		k.told = true
		return 0
	case time.Since(k.confirming) < confirmFor:
		return watchEvery
	case !k.doubted:
		k.doubted = true
		slog.Warn("registry: still does not list the pod: has its app registered?", "registry", k.Name, "waited", confirmFor.String())
	}
	return restoreAgainEvery
}

// askWithdrawn asks whether clients are no longer told of the instance.
func (k *keeper) askWithdrawn(ctx context.Context, want place) (gone, current bool, err error) {
	current, err = k.call(ctx, "ask", want, func(ctx context.Context) (err error) {
		gone, err = k.Registry.Withdrawn(ctx)
		return err
	})
	return gone, current, err
}

// find looks the instance up, and sets when to do so again.
func (k *keeper) find(ctx context.Context, finder Finder) {
	var what string
	current, err := k.call(ctx, "find", inService, func(ctx context.Context) (err error) {
		what, err = finder.Find(ctx)
		return err
	})
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	if !current {
		return
	}
	k.findTries++
	// From a second up to half a minute: an app may take its time to register.
	k.findAt = time.Now().Add(min(time.Duration(k.findTries)*time.Second, 30*time.Second))
	if err != nil {
		return
	}
	if k.foundAt.IsZero() {
		k.foundAt = time.Now()
	}
	if what != k.found {
		k.found = what
		slog.Info("registry: instance found", "registry", k.Name, "instance", what)
	}
	if time.Since(k.startedAt) >= findOften {
		k.findTries = 0
		k.findAt = time.Now().Add(max(findAgainAfter, time.Since(k.foundAt)))
	}
}

// appStarted has the instance looked up at once, and often for a while. Callers
// hold d.mu.
func (k *keeper) appStarted() {
	k.startedAt = time.Now()
	k.foundAt, k.findAt, k.findTries = time.Time{}, time.Time{}, 0
	poke(k.kick)
}

func (k *keeper) deregister(ctx context.Context) time.Duration {
	if !k.d.mayDeregister(ctx) {
		return k.d.cfg.Poll
	}
	current, err := k.call(ctx, "deregister", deregistered, k.Registry.Deregister)
	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	switch {
	case !current:
		return 0
	case err != nil:
		return k.retry.wait()
	}
	k.told = false
	close(k.settled)
	k.d.note("%s: deregistered", k.Name)
	return -1
}

// call makes one call to the registry, bounded, counted, and logged when it
// fails. It returns false when another order has come meanwhile.
func (k *keeper) call(ctx context.Context, op string, want place, f func(context.Context) error) (current bool, err error) {
	k.d.mu.Lock()
	if k.want != want {
		k.d.mu.Unlock()
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, registryCallLimit)
	defer cancel()
	if until := k.until; !until.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	k.drop, k.mustEnd = cancel, op == "withdraw"
	generation := k.generation
	k.d.mu.Unlock()

	err = guard(k.Name+" registry", func() error { return f(ctx) })

	k.d.mu.Lock()
	defer k.d.mu.Unlock()
	k.drop = nil
	current = k.generation == generation
	if !current && err != nil {
		return false, err // dropped, or no longer wanted: neither counts
	}
	count := k.calls[op]
	if count == nil {
		count = &CallCount{}
		k.calls[op] = count
	}
	count.Calls++
	if err == nil {
		k.lastErr, k.inARow = "", 0
		return current, nil
	}
	count.Failures++
	k.failures++
	k.inARow++
	if want == outOfService && k.inARow == unreachableAfter && !k.unreachable {
		k.unreachable = true
		k.d.emitLocked(EventUnreachable, "calls to %s fail, and are tried again until the budget ends: %s: %s", k.Name, op, clip(err.Error()))
	}
	if text := clip(err.Error()); text != k.lastErr {
		k.lastErr = text
		slog.Warn("registry: call failed, will be tried again", "registry", k.Name, "call", op, "error", err)
		if want == outOfService && k.d.leaving != nil {
			k.d.leaving.mark(fmt.Sprintf("%s: %s failed: %s", k.Name, op, text))
		}
	}
	return current, err
}

// forgottenAt is when the registry's clients have forgotten the instance; zero
// while that cannot be told. Callers hold d.mu.
func (k *keeper) forgottenAt() time.Time {
	if k.goneAt.IsZero() {
		return time.Time{}
	}
	return k.goneAt.Add(k.ClientRefresh)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
