package drain

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrainWaitsForClientsThenForQuiet(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		if !p.Ready() || p.phase() != Serving {
			t.Fatal("a new pod does not serve")
		}
		report, took := p.hook()
		if report.Outcome != OutcomeDrained || p.Ready() {
			t.Fatalf("outcome %s, ready %v", report.Outcome, p.Ready())
		}
		about(t, "client refresh and quiet", took, 6*time.Second)
		if r := report.Registries[0]; r.State != "forgotten" || r.Withdrawn == nil || r.Gone == nil {
			t.Errorf("the report says of the registry %+v", r)
		}
	})
}

func TestDrainWaitsForTheLastRequest(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.counter.set(3)
		go func() {
			after(12 * time.Second)
			p.counter.set(0)
		}()
		report, took := p.hook()
		if report.Outcome != OutcomeDrained {
			t.Fatalf("outcome %s", report.Outcome)
		}
		about(t, "work and quiet", took, 13*time.Second)
	})
}

func TestArrivalsBetweenReadingsKeepItFromQuiet(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		go func() {
			after(5 * time.Second)
			for range 20 { // half a second apart, each over before it can be read
				p.counter.set(1)
				p.counter.set(0)
				after(500 * time.Millisecond)
			}
		}()
		_, took := p.hook()
		about(t, "the last arrival and quiet", took, 5*time.Second+19*500*time.Millisecond+time.Second)
	})
}

func TestThresholdIsAccepted(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.Threshold = 2 }, func(t *testing.T, p *pod) {
		p.counter.set(2)
		if report, _ := p.hook(); report.Outcome != OutcomeDrained || *report.InFlight != 2 {
			t.Fatalf("outcome %s with %d in flight", report.Outcome, *report.InFlight)
		}
	})
}

func TestEndpointsWaitHoldsWithoutRegistries(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.Registries = nil }, func(t *testing.T, p *pod) {
		_, took := p.hook()
		about(t, "endpoints and quiet", took, 4*time.Second)
	})
}

func TestUnreadableIsNotZero(t *testing.T) {
	for _, m := range []mode{failing, hanging, panics} {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.counter.mode = m
			go func() {
				after(15 * time.Second)
				p.counter.mu.Lock()
				p.counter.mode = healthy
				p.counter.mu.Unlock()
			}()
			report, took := p.hook()
			if report.Outcome != OutcomeDrained || took < 16*time.Second || took > 19*time.Second {
				t.Fatalf("mode %d: %s after %v, want drained when it could be read", m, report.Outcome, took)
			}
		})
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.counter.mode = m
			report, took := p.hook()
			if report.Outcome != OutcomeExpired || took != 25*time.Second {
				t.Fatalf("mode %d: %s after %v, want expired with the budget", m, report.Outcome, took)
			}
			if report.InFlight != nil || report.Counters[0].Error == "" {
				t.Errorf("the report makes a number of what could not be read: %+v", report.Counters)
			}
		})
	}
}

func TestRegistryThatFailsAndComesBack(t *testing.T) {
	for _, m := range []mode{failing, hanging, panics, lying} {
		inPod(t, nil, func(t *testing.T, p *pod) {
			p.registry.mode = m
			go func() {
				after(8 * time.Second)
				p.registry.mu.Lock()
				p.registry.mode = healthy
				p.registry.mu.Unlock()
			}()
			report, took := p.hook()
			if report.Outcome != OutcomeDrained {
				t.Fatalf("mode %d: outcome %s, %s", m, report.Outcome, report.WaitingFor)
			}
			// Up to a call's limit or a back-off after it came back, then refresh and quiet.
			if took < 14*time.Second || took > 14*time.Second+withdrawAgainEvery {
				t.Errorf("mode %d: took %v", m, took)
			}
			if m != lying && report.Registries[0].Failures == 0 {
				t.Errorf("mode %d: the report is silent on failures", m)
			}
		})
	}
}

func TestRegistryThatStaysDownExpires(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.registry.mode = failing
		report, took := p.hook()
		if report.Outcome != OutcomeExpired || took != 25*time.Second {
			t.Fatalf("%s after %v", report.Outcome, took)
		}
		if !strings.Contains(report.WaitingFor, "registry to accept the withdrawal") || report.Registries[0].Error == "" {
			t.Errorf("the report does not say why: %q, %+v", report.WaitingFor, report.Registries)
		}
		p.Stop()
		p.app.set(false)
		if _, err := p.ended(time.Now()); err != nil {
			t.Errorf("nothing was in flight, and Run returns %v", err)
		}
	})
}

func TestARegistryThatListsAgainIsWithdrawnAgain(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.counter.set(1)
		go func() {
			after(10 * time.Second) // in draining: the app's client registers again
			if got := p.phase(); got != Draining {
				t.Errorf("phase %s, want draining", got)
			}
			p.registry.set(func() { p.registry.override = false })
			after(1500 * time.Millisecond)
			if got := p.phase(); got != Propagating {
				t.Errorf("phase %s, want propagating again", got)
			}
			p.counter.set(0)
		}()
		report, took := p.hook()
		if report.Outcome != OutcomeDrained || p.withdrawals() < 2 {
			t.Fatalf("%s with %d withdrawals", report.Outcome, p.withdrawals())
		}
		if took < 16*time.Second || took > 18*time.Second {
			t.Errorf("took %v, want the clients' refresh after the second withdrawal", took)
		}
	})
}

func TestSlowRegistryCacheIsWaitedFor(t *testing.T) {
	inPod(t, func(_ *Config, p *pod) { p.registry.lag = 10 * time.Second }, func(t *testing.T, p *pod) {
		_, took := p.hook()
		if took < 16*time.Second || took > 17500*time.Millisecond {
			t.Errorf("took %v, want the cache's 10 s, the clients' 5 s, and quiet", took)
		}
	})
}

func TestManyCallersShareOneDrain(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		reports := make([]string, 200)
		var all sync.WaitGroup
		for i := range reports {
			all.Go(func() {
				after(time.Duration(i) * 20 * time.Millisecond)
				report, _ := p.hook()
				text, _ := json.Marshal(report)
				reports[i] = string(text)
			})
		}
		all.Wait()
		for _, r := range reports {
			if r != reports[0] {
				t.Fatalf("two reports:\n%s\n%s", r, reports[0])
			}
		}
		if p.withdrawals() != 1 {
			t.Errorf("%d withdrawals", p.withdrawals())
		}
		// A hook that is delivered once more is answered at once.
		if _, took := p.hook(); took != 0 {
			t.Errorf("a repeated hook took %v", took)
		}
	})
}

func TestACallerThatHangsUpDoesNotStopTheDrain(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := p.PreStop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		_, took := p.hook()
		about(t, "the rest", took, 4*time.Second)
	})
}

func TestAHookBeforeStartUpHasFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRegistry{registered: true}
		d := New(Config{GracePeriod: 30 * time.Second, Reserve: 5 * time.Second, Poll: time.Second, Registries: []NamedRegistry{{Name: "r", Registry: r}}})
		reports := make(chan Report, 1)
		go func() {
			report, _ := d.PreStop(context.Background())
			reports <- report
		}()
		after(2 * time.Second)
		if d.Ready() {
			t.Error("ready after the hook")
		}
		ran := make(chan error, 1)
		go func() { ran <- d.Run(context.Background()) }()
		if report := <-reports; report.Outcome != OutcomeDrained || r.withdrawals == 0 {
			t.Errorf("%s with %d withdrawals", report.Outcome, r.withdrawals)
		}
		d.Stop()
		<-ran
	})
}

func TestAHookAfterTheGracePeriodIsAnotherDrain(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.App = nil }, func(t *testing.T, p *pod) {
		p.Begin(CauseCall) // an operator's, and the pod stays drained
		after(time.Hour)
		p.counter.set(1) // somebody came all the same
		go func() {
			after(9 * time.Second)
			p.counter.set(0)
		}()
		report, took := p.hook()
		if report.Outcome != OutcomeDrained || report.Cause != CauseHook {
			t.Fatalf("%s, begun by %s", report.Outcome, report.Cause)
		}
		about(t, "work and quiet", took, 10*time.Second)
	})
}

func TestReadinessCanBeKept(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.StayReady = true }, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		if !p.Ready() {
			t.Error("not ready")
		}
	})
}

func TestFileLikeCountersWakeTheDrain(t *testing.T) {
	inPod(t, func(c *Config, p *pod) {
		p.counter.changes = make(chan struct{}, 1)
		c.Registries, c.Poll = nil, time.Hour // polls would come too late
	}, func(t *testing.T, p *pod) {
		p.counter.set(1)
		go func() {
			after(10*time.Second + 123*time.Millisecond)
			p.counter.set(0)
		}()
		_, took := p.hook()
		if want := 11*time.Second + 123*time.Millisecond; took < want || took > want+10*time.Millisecond {
			t.Errorf("took %v, want %v", took, want)
		}
	})
}
