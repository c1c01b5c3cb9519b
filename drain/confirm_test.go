package drain

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// drainedByACall drains the pod by a call, and lets d go by after its beginning.
func (p *pod) drainedByACall(d time.Duration) {
	p.t.Helper()
	p.BeginWithin(Unbounded)
	after(d + 321*ms) // between two questions to the registry
	if got := p.phase(); got != Drained {
		p.t.Fatalf("%s %v after the call", got, d)
	}
}

func TestAHookThatFindsThePodDrained(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config, *pod)
		since  time.Duration // from the call to the hook
		most   time.Duration // that the hook may take
	}{
		"within the grace period":          {nil, 15 * time.Second, 10 * ms},
		"long after":                       {nil, time.Hour, 10 * ms},
		"without a registry":               {func(c *Config, _ *pod) { c.Registries = nil }, time.Hour, 10 * ms},
		"without a counter":                {func(c *Config, _ *pod) { c.Counters = nil }, time.Hour, 10 * ms},
		"a counter that sees no arrivals":  {func(_ *Config, p *pod) { p.counter.arrives = false }, time.Hour, time.Second + 10*ms},
		"without the app's port":           {func(c *Config, _ *pod) { c.App = nil }, time.Hour, 10 * ms},
		"one that accepts work in flight ": {func(c *Config, p *pod) { c.Threshold = 1; p.counter.set(1) }, time.Hour, 10 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			inPod(t, c.change, func(t *testing.T, p *pod) {
				began := time.Now()
				p.drainedByACall(c.since)
				withdrawals := p.withdrawals()
				for range 2 { // the second one is as good
					report, took := p.hook()
					if report.Outcome != OutcomeDrained || report.Cause != CauseCall || !report.Began.Equal(began) {
						t.Fatalf("another drain's report: %s by %s", report.Outcome, report.Cause)
					}
					if took > c.most {
						t.Errorf("the hook took %v", took)
					}
				}
				if got := p.withdrawals(); got != withdrawals {
					t.Errorf("withdrawn %d times more", got-withdrawals)
				}
				if sum := p.Totals(context.Background()).Drains[OutcomeDrained]; sum.Count != 1 {
					t.Errorf("%d drains, want one", sum.Count)
				}
				p.Stop()
				p.app.set(false)
				if took, err := p.ended(time.Now()); err != nil || took > 30*time.Second || p.deregistered() == 0 && c.change == nil {
					t.Errorf("ended after %v: %v, deregistered %d times", took, err, p.deregistered())
				}
			})
		})
	}
}

// What has changed since the drain ended makes another one necessary.
func TestAHookThatFindsThePodNoLongerDrained(t *testing.T) {
	inFlight := func(p *pod) {
		p.counter.set(1)
		go func() { after(9 * time.Second); p.counter.set(0) }()
	}
	for name, c := range map[string]struct {
		change func(*pod)
		takes  time.Duration // at least, and a second more at most
	}{
		"work in flight": {inFlight, 10 * time.Second},
		"registered again, this moment": {func(p *pod) {
			p.registry.set(func() { p.registry.override = false })
		}, 6 * time.Second},
		"a registry that does not answer": {func(p *pod) {
			p.registry.mu.Lock()
			p.registry.mode = failing
			p.registry.mu.Unlock()
			go func() {
				after(8 * time.Second)
				p.registry.mu.Lock()
				p.registry.mode = healthy
				p.registry.mu.Unlock()
			}()
		}, 14 * time.Second},
		"a counter that cannot be read": {func(p *pod) {
			p.counter.mu.Lock()
			p.counter.mode = failing
			p.counter.mu.Unlock()
			go func() {
				after(8 * time.Second)
				p.counter.mu.Lock()
				p.counter.mode = healthy
				p.counter.mu.Unlock()
			}()
		}, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inPod(t, nil, func(t *testing.T, p *pod) {
				p.drainedByACall(time.Hour)
				c.change(p)
				report, took := p.hook()
				if report.Outcome != OutcomeDrained || report.Cause != CauseHook {
					t.Fatalf("%s by %s", report.Outcome, report.Cause)
				}
				if took < c.takes || took > c.takes+3*time.Second {
					t.Errorf("the hook took %v, want %v", took, c.takes)
				}
			})
		})
	}
}

// A request that came and went since then is no reason to start over: quiet is.
func TestOneArrivalSinceThenCostsTheQuietTime(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.drainedByACall(time.Hour)
		p.counter.set(1)
		p.counter.set(0)
		report, took := p.hook()
		if report.Cause != CauseCall {
			t.Errorf("another drain, by %s", report.Cause)
		}
		about(t, "the hook", took, time.Second)
	})
}

// Hooks that come together find it out once; so does the SIGTERM of a classic
// sidecar, which comes with them.
func TestHooksAndASignalFindThePodDrained(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.drainedByACall(time.Hour)
		called := time.Now()
		reports := make(chan Report, 20)
		for range cap(reports) {
			go func() {
				report, _ := p.PreStop(context.Background())
				reports <- report
			}()
		}
		p.Stop()
		for range cap(reports) {
			if r := <-reports; r.Cause != CauseCall || r.Outcome != OutcomeDrained {
				t.Fatalf("%s by %s", r.Outcome, r.Cause)
			}
		}
		if took := time.Since(called); took > 10*ms {
			t.Errorf("it took %v", took)
		}
		after(5 * time.Second)
		p.app.set(false)
		if took, err := p.ended(called); err != nil || took > 6*time.Second {
			t.Errorf("ended after %v: %v", took, err)
		}
	})
}

// A hook that is given up, and a registry that hangs, do not keep a pod from a
// drain, nor the hook for longer than the budget.
func TestFindingOutIsBounded(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.drainedByACall(time.Hour)
		p.registry.mu.Lock()
		p.registry.mode = hanging
		p.registry.mu.Unlock()
		breakOff, _ := p.call()
		after(time.Second)
		breakOff()
		synctest.Wait()
		if got := p.phase(); got == Drained {
			t.Errorf("%s: the hook was given up, and no drain has begun", got)
		}
		report, took := p.hook()
		if report.Outcome != OutcomeExpired || took > 25*time.Second-time.Second {
			t.Errorf("%s after %v", report.Outcome, took)
		}
	})
}

// What happens while that is found out happens to the drain that the hook would
// have begun: a call takes it back, with the hook's answer.
func TestTakenBackWhileItIsFoundOut(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.drainedByACall(time.Hour)
		p.registry.mu.Lock()
		p.registry.mode = hanging
		p.registry.mu.Unlock()
		_, answers := p.call()
		p.registry.mu.Lock()
		p.registry.mode = healthy
		p.registry.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.TakeBack(ctx); err != nil {
			t.Fatal(err)
		}
		if r := <-answers; r.Cause != CauseHook || r.Outcome != OutcomeTakenBack {
			t.Errorf("%s by %s, want the hook's own drain, taken back", r.Outcome, r.Cause)
		}
		if got := p.phase(); got != Serving {
			t.Errorf("it is %s", got)
		}
	})
}

// So does the app's start: the kubelet may have given the hook up. The pod comes
// back when the grace period is over, and no signal has come.
func TestPostStartWhileItIsFoundOut(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.App = nil }, func(t *testing.T, p *pod) {
		p.hook()
		after(time.Hour)
		p.registry.set(func() { p.registry.mode = hanging })
		breakOff, _ := p.call()
		after(10 * ms)
		p.PostStart()
		p.registry.set(func() { p.registry.mode = healthy })
		breakOff()
		after(p.cfg.GracePeriod + 2*signalMargin)
		if got := p.phase(); got != Serving {
			t.Errorf("it is %s after the grace period", got)
		}
	})
}

// SIGINT ends a process whose pod is drained, and makes no failure of that.
func TestInterruptOfADrainedPod(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.drainedByACall(time.Hour)
		p.app.set(false)
		began := time.Now()
		p.Interrupt()
		if took, err := p.ended(began); err != nil || took > time.Second || p.deregistered() != 1 {
			t.Errorf("ended after %v: %v, deregistered %d times", took, err, p.deregistered())
		}
	})
}
