package drain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestARestartTakesTheDrainBack(t *testing.T) {
	restart := func(p *pod) {
		p.hook()
		p.app.set(false)
		after(2 * time.Second)
		if p.Ready() || p.deregistered() > 0 {
			p.t.Error("an app that is gone was given up before anybody told the sidecar to stop")
		}
		p.app.set(true)
		after(time.Second)
	}
	t.Run("seen by the app listening again", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			restart(p)
			if !p.Ready() || p.phase() != Serving || p.withdrawn() {
				t.Fatalf("ready %v, phase %s, withdrawn %v", p.Ready(), p.phase(), p.withdrawn())
			}
			// The next hook is another drain.
			if report, _ := p.hook(); report.Outcome != OutcomeDrained || p.withdrawals() != 2 {
				t.Errorf("%s after %d withdrawals", report.Outcome, p.withdrawals())
			}
		})
	})
	t.Run("after a drain that expired", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.counter.set(1)
			restart(p)
			if !p.Ready() || p.withdrawn() {
				t.Fatal("not taken back")
			}
		})
	})
	t.Run("told by the postStart hook", func(t *testing.T) {
		inPod(t, func(c *Config, _ *pod) { c.App = nil }, func(t *testing.T, p *pod) {
			p.hook()
			p.PostStart()
			after(time.Second)
			if !p.Ready() || p.withdrawn() {
				t.Fatal("not taken back")
			}
		})
	})
	t.Run("not while the hook is waiting", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.app.set(false) // still starting, when the pod is deleted
			p.counter.set(1)
			go p.hook()
			after(time.Second)
			p.app.set(true)
			p.PostStart() // another container's
			after(time.Second)
			if p.Ready() {
				t.Fatal("taken back under a hook that waits")
			}
		})
	})
	t.Run("not after a signal", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.Stop()
			p.hook()
			p.app.set(false)
			after(50 * time.Millisecond)
			p.app.set(true)
			p.PostStart()
			after(time.Second)
			if p.Ready() {
				t.Fatal("taken back after a signal")
			}
		})
	})
	t.Run("not when somebody asked for the drain", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.Begin(CauseCall)
			p.app.set(false)
			after(2 * time.Second)
			p.app.set(true)
			p.PostStart()
			after(time.Second)
			if p.Ready() {
				t.Fatal("an app that crashed undid what somebody had asked for")
			}
		})
	})
}

func TestTakeBack(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		if err := p.TakeBack(t.Context()); !errors.Is(err, ErrServing) {
			t.Fatalf("with no drain: %v", err)
		}
		outcomes := make(chan Outcome, 1)
		go func() {
			report, _ := p.hook()
			outcomes <- report.Outcome
		}()
		after(time.Second)
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !p.Ready() || p.withdrawn() {
			t.Fatalf("ready %v, withdrawn %v", p.Ready(), p.withdrawn())
		}
		if got := <-outcomes; got != OutcomeTakenBack {
			t.Errorf("the hook was told %s", got)
		}
		p.Stop()
		synctest.Wait()
		if err := p.TakeBack(t.Context()); !errors.Is(err, ErrTooLate) {
			t.Errorf("after a signal: %v", err)
		}
	})
}

func TestTakeBackFromARegistryThatIsDown(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(time.Second)
		p.registry.mu.Lock()
		p.registry.mode = failing
		p.registry.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.TakeBack(ctx); err != nil || !p.Ready() {
			t.Fatalf("%v, ready %v", err, p.Ready())
		}
		if s := p.Status(t.Context()).Registries[0]; s.State != "restoring" || s.Error == "" {
			t.Errorf("the status says %+v", s)
		}
		after(time.Minute)
		p.registry.mu.Lock()
		p.registry.mode = healthy
		p.registry.mu.Unlock()
		after(3 * time.Second)
		if p.withdrawn() {
			t.Error("not put back when the registry had come back")
		}
	})
}

func TestAWithdrawalUnderWayEndsBeforeTheRestore(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.registry.mode = hanging
		p.Begin(CauseCall)
		after(time.Second)
		p.registry.mu.Lock()
		p.registry.mode = healthy
		p.registry.mu.Unlock()
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p.withdrawn() {
			t.Error("still withdrawn")
		}
	})
}

func TestTakeBackReturnsWhenNothingIsLeftToDo(t *testing.T) {
	t.Run("before the first withdrawal", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.Begin(CauseCall)
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			began := time.Now()
			if err := p.TakeBack(ctx); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v, with %d withdrawals to undo", took, p.withdrawals())
			}
			after(time.Second)
			if p.withdrawn() {
				t.Error("the instance stays withdrawn")
			}
		})
	})
	t.Run("another drain takes its place", func(t *testing.T) {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.Begin(CauseCall)
			after(time.Second)
			p.registry.mu.Lock()
			p.registry.mode = failing // Restore fails
			p.registry.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			began, took := time.Now(), make(chan time.Duration, 1)
			go func() {
				_ = p.TakeBack(ctx)
				took <- time.Since(began)
			}()
			after(time.Second)
			p.Begin(CauseCall)
			if d := <-took; d > 2*time.Second {
				t.Errorf("it returned %v after its call", d)
			}
		})
	})
}

// Between a hook's arrival and its being counted nothing takes the drain back.
func TestAPostStartInTheMomentOfAHook(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			counter := &fakeCounter{inFlight: 1}
			d := New(Config{GracePeriod: 10 * time.Second, Poll: 100 * ms, Counters: []NamedCounter{{Name: "counter", Counter: counter}}})
			outcome := make(chan Outcome, 1)
			go func() {
				report, _ := d.PreStop(context.Background())
				outcome <- report.Outcome
			}()
			for range 20 {
				go d.PostStart()
			}
			if got := <-outcome; got != OutcomeExpired {
				t.Fatalf("the hook's drain ended as %s", got)
			}
		})
	}
}
