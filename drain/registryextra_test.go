package drain

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// chain is a registry that sends several requests in one call: Withdraw takes
// its time, and is done step by step.
type chain struct {
	fakeRegistry
	limit    time.Duration
	takes    time.Duration
	ended    time.Time // the last Withdraw
	restored time.Time // the last Restore began
	cut      time.Duration
}

func (c *chain) CallLimit() time.Duration { return c.limit }

func (c *chain) Withdraw(ctx context.Context) error {
	began := time.Now()
	pause(ctx, c.takes, nil)
	c.mu.Lock()
	c.ended, c.cut = time.Now(), time.Since(began)
	c.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.fakeRegistry.Withdraw(ctx)
}

func (c *chain) Restore(ctx context.Context) error {
	c.mu.Lock()
	c.restored = time.Now()
	c.mu.Unlock()
	return c.fakeRegistry.Restore(ctx)
}

// inChain is inPod with a chain.
func inChain(t *testing.T, limit, takes time.Duration, f func(t *testing.T, p *pod, c *chain)) {
	t.Helper()
	c := &chain{limit: limit, takes: takes}
	c.registered = true
	inPod(t, func(cfg *Config, _ *pod) {
		c.changed = time.Now().Add(-time.Hour)
		cfg.Registries[0].Registry = c
	}, func(t *testing.T, p *pod) { f(t, p, c) })
}

func TestACallTakesAsLongAsItsRegistryAllows(t *testing.T) {
	t.Run("longer than the fixed limit", func(t *testing.T) {
		inChain(t, 45*time.Second, 12*time.Second, func(t *testing.T, p *pod, _ *chain) {
			report, took := p.hook()
			if report.Outcome != OutcomeDrained || report.Registries[0].Failures > 0 {
				t.Errorf("outcome %s: %+v", report.Outcome, report.Registries[0])
			}
			about(t, "the hook", took, 18*time.Second)
		})
	})
	t.Run("within the budget", func(t *testing.T) {
		inChain(t, 45*time.Second, 40*time.Second, func(t *testing.T, p *pod, c *chain) {
			report, took := p.hook()
			if report.Outcome != OutcomeExpired || took != 25*time.Second {
				t.Errorf("outcome %s after %v", report.Outcome, took)
			}
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.cut != 25*time.Second {
				t.Errorf("the call was cut after %v", c.cut)
			}
		})
	})
}

// A Withdraw of several requests would go on after a Restore that overtakes it.
func TestARestoreWaitsForAChainOfRequests(t *testing.T) {
	inChain(t, 45*time.Second, 12*time.Second, func(t *testing.T, p *pod, c *chain) {
		p.Begin(CauseCall)
		after(time.Second)
		if err := p.TakeBack(context.Background()); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.restored.Before(c.ended) || c.cut != 12*time.Second || c.override {
			t.Errorf("Withdraw ended at %v after %v, Restore began at %v; withdrawn %v", c.ended, c.cut, c.restored, c.override)
		}
	})
}

// A call that was cut off may have taken effect as late as its limit allows.
func TestTheDoubtLastsAsLongAsTheCallMay(t *testing.T) {
	r, _ := newTasks(&chain{limit: 45 * time.Second}, fakeStopper{})
	now := time.Now()
	r.setTargetLocked(outOfService, now.Add(time.Hour))
	c, _ := r.nextLocked(now)
	if c.limit != 45*time.Second || !c.mustFinish {
		t.Fatalf("the call is %+v", c)
	}
	if want := now.Add(50 * time.Second); !r.withdrawals.until.Equal(want) {
		t.Errorf("in doubt until %v, want %v", r.withdrawals.until, want)
	}
}

// telling is a registry that reports changes.
type telling struct {
	fakeRegistry
	changes chan struct{}
	asks    atomic.Int32
}

func (f *telling) Changes() <-chan struct{} { return f.changes }

func (f *telling) Withdrawn(ctx context.Context) (bool, error) {
	f.asks.Add(1)
	return f.fakeRegistry.Withdrawn(ctx)
}

func TestARegistryThatReportsChangesIsAskedAtOnce(t *testing.T) {
	f := &telling{}
	f.registered, f.lag = true, 2110*ms
	inPod(t, func(c *Config, _ *pod) {
		f.changes = make(chan struct{}, 1)
		f.changed = time.Now().Add(-time.Hour)
		c.Registries[0].Registry = f
	}, func(t *testing.T, p *pod) {
		f.changes <- struct{}{} // of no interest while the pod serves
		after(time.Second)
		if n := f.asks.Load(); n > 0 {
			t.Errorf("asked %d times while the pod serves", n)
		}
		time.AfterFunc(f.lag, func() { notify(f.changes) })
		p.Begin(CauseCall)
		after(4 * time.Second)
		r := p.Status(t.Context()).Registries[0]
		if r.Gone == nil || *r.Gone < 2.11 || *r.Gone > 2.11+2*changeGap.Seconds() {
			t.Fatalf("seen gone after %v s, want 2.11", *r.Gone)
		}
		// The app registers itself again, between two looks.
		f.set(func() { f.registered, f.override, f.lag = true, false, 0 })
		notify(f.changes)
		after(changeGap)
		synctest.Wait()
		if f.withdrawals != 2 {
			t.Errorf("withdrawn %d times, want a second time at once", f.withdrawals)
		}
		// Changes without end do not make it ask without end.
		asks := f.asks.Load()
		for range 1000 {
			notify(f.changes)
			after(ms)
		}
		if n := f.asks.Load() - asks; n > int32(time.Second/changeGap)+1 {
			t.Errorf("asked %d times in a second", n)
		}
	})
}

func TestAChangeDuringAQuestion(t *testing.T) {
	r, _ := newTasks(&telling{changes: make(chan struct{}, 1)}, fakeStopper{})
	now := time.Now()
	r.setTargetLocked(outOfService, now.Add(time.Minute))
	expect(t, r, opWithdraw, now, answer{}, nil)
	c, _ := r.nextLocked(now)
	r.changedLocked()
	r.doneLocked(c, answer{}, nil, now)
	expectWait(t, r, now, changeGap, changeGap)
	now = now.Add(changeGap)
	expect(t, r, opAsk, now, answer{}, errBroken)
	r.changedLocked()
	expectWait(t, r, now, 80*ms, 100*ms) // a registry that fails is left alone
}

// role is a registry that does not list every instance in service.
type role struct{ fakeRegistry }

func (*role) Lists() bool { return false }

func TestARoleIsNotWaitedForAfterARestore(t *testing.T) {
	f := &role{}
	inPod(t, func(c *Config, _ *pod) {
		f.changed = time.Now().Add(-time.Hour) // it does not have the role
		c.Registries[0].Registry = f
	}, func(t *testing.T, p *pod) {
		p.hook()
		restores := 0
		f.onCall = func(op string) {
			if op == opRestore {
				restores++
			}
		}
		if err := p.TakeBack(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := p.Status(t.Context()).Registries[0].State; got != "in service" {
			t.Errorf("its state is %q", got)
		}
		after(10 * time.Minute)
		if restores != 1 {
			t.Errorf("restored %d times", restores)
		}
	})
}

// Where nobody can be asked whether a Withdraw has taken effect after all,
// Restore is called once more.
func TestARoleThatMayBeTakenYet(t *testing.T) {
	r, _ := newTasks(&roleAlone{}, fakeStopper{})
	now := time.Now()
	r.setTargetLocked(outOfService, now.Add(time.Minute))
	expect(t, r, opWithdraw, now, answer{}, errBroken)
	r.setTargetLocked(inService, time.Time{})
	expect(t, r, opRestore, now, answer{}, nil)
	if !isClosed(r.settled) {
		t.Error("not settled")
	}
	expectWait(t, r, now, 2*callLimit, 2*callLimit)
	now = now.Add(2 * callLimit)
	expect(t, r, opRestore, now, answer{}, nil)
	expectWait(t, r, now, forever, forever)
}

// roleAlone is a role that cannot be looked up.
type roleAlone struct{ wordy }

func (*roleAlone) Lists() bool { return false }
