package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pod is one Drainer with one of each part, in a bubble of fake time.
type pod struct {
	*Drainer
	t        *testing.T
	registry *fakeRegistry
	counter  *fakeCounter
	app      *fakeApp
	ran      chan error
}

// inPod runs f with a pod that serves, and then has the pod deleted.
func inPod(t *testing.T, change func(*Config, *pod), f func(t *testing.T, p *pod)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pod{
			t:        t,
			registry: &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)},
			counter:  &fakeCounter{arrives: true},
			app:      startedApp(),
			ran:      make(chan error, 1),
		}
		cfg := Config{
			GracePeriod:   30 * time.Second,
			Reserve:       5 * time.Second,
			EndpointsWait: 3 * time.Second,
			Quiet:         time.Second,
			Poll:          100 * time.Millisecond,
			Registries:    []NamedRegistry{{Name: "registry", Registry: p.registry, ClientRefresh: 5 * time.Second}},
			Counters:      []NamedCounter{{Name: "counter", Counter: p.counter}},
			App:           p.app,
		}
		if change != nil {
			change(&cfg, p)
		}
		p.Drainer = New(cfg)
		go func() { p.ran <- p.Run(context.Background()) }()
		defer func() {
			p.Stop()
			p.Interrupt()
			<-p.ran
		}()
		synctest.Wait()
		f(t, p)
	})
}

// hook calls PreStop as a kubelet does, and returns its report and how long it took.
func (p *pod) hook() (Report, time.Duration) {
	p.t.Helper()
	began := time.Now()
	report, err := p.PreStop(context.Background())
	if err != nil {
		p.t.Errorf("PreStop: %v", err)
	}
	return report, time.Since(began)
}

func (p *pod) withdrawals() int  { n, _, _ := p.registry.seen(); return n }
func (p *pod) deregistered() int { _, n, _ := p.registry.seen(); return n }
func (p *pod) withdrawn() bool   { _, _, is := p.registry.seen(); return is }

func (p *pod) phase() Phase {
	synctest.Wait()
	return p.Status(context.Background()).Phase
}

// ended waits for Run's end, and returns how long after the drain's beginning
// that was.
func (p *pod) ended(began time.Time) (time.Duration, error) {
	err := <-p.ran
	p.ran <- err
	return time.Since(began), err
}

// longest is what a wait may last beyond what it should, for polls.
const longest = 200 * time.Millisecond

func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+longest {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}

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

// The kubelet sends a classic sidecar SIGTERM together with the app's hook.
func TestClassicSidecar(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		began := time.Now()
		p.counter.set(1)
		go func() {
			after(10 * time.Millisecond)
			p.Stop()
			after(8 * time.Second)
			p.counter.set(0)
		}()
		report, _ := p.hook()
		if report.Outcome != OutcomeDrained || p.deregistered() > 0 {
			t.Fatalf("%s, deregistered %d times", report.Outcome, p.deregistered())
		}
		after(2 * time.Second) // the app's own shutdown
		p.app.set(false)
		took, err := p.ended(began)
		if err != nil || p.deregistered() != 1 {
			t.Fatalf("%v, deregistered %d times", err, p.deregistered())
		}
		about(t, "the app", took, 11*time.Second)
	})
}

// A native sidecar gets SIGTERM when the app has exited.
func TestNativeSidecar(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.hook()
		p.app.set(false)
		after(time.Second)
		if p.deregistered() > 0 {
			t.Error("deregistered before anybody knew of a deletion")
		}
		p.Stop()
		if took, err := p.ended(time.Now()); err != nil || p.deregistered() != 1 || took > longest {
			t.Fatalf("%v after %v, deregistered %d times", err, took, p.deregistered())
		}
	})
}

// An app that takes all of its grace period is killed at its end, and in the same
// moment a native sidecar gets SIGTERM, with 2 s left: that is no other drain.
func TestANativeSidecarThatIsToldLate(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		signal time.Duration // after the end of the grace period
		killed time.Duration // the app
		known  bool          // its port
	}{
		"after the app":          {200 * ms, 0, true},
		"in the same moment":     {10 * ms, 10 * ms, true},
		"before the app":         {10 * ms, 50 * ms, true},
		"a moment too early":     {-10 * ms, 50 * ms, true},
		"of an unknown app":      {10 * ms, 50 * ms, false},
		"long after an app went": {time.Minute, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, func(c *Config, _ *pod) {
				c.Observers = []Observer{notes}
				if !test.known {
					c.App = nil
				}
			}, func(t *testing.T, p *pod) {
				p.counter.set(1)
				if report, _ := p.hook(); report.Outcome != OutcomeExpired {
					t.Fatalf("the drain ended as %s", report.Outcome)
				}
				notes.read()
				graceEnd := time.Now().Add(5 * time.Second)
				killed := make(chan struct{})
				go func() {
					after(time.Until(graceEnd.Add(test.killed)))
					p.app.set(false)
					p.counter.set(0)
					close(killed)
				}()
				after(time.Until(graceEnd.Add(test.signal)))
				p.Stop()
				took, err := p.ended(time.Now())
				<-killed
				if test.killed < test.signal && err != nil || test.killed > test.signal && !errors.Is(err, ErrWorkLeft) {
					t.Errorf("it ended with %v", err)
				}
				if p.deregistered() != 1 || took > 2*time.Second {
					t.Errorf("after %v, deregistered %d times", took, p.deregistered())
				}
				if got := notes.read(); got != "" {
					t.Errorf("told\n%s", got)
				}
			})
		})
	}
}

// Long after a drain that a hook has begun and that was never taken back, a
// signal is the pod's own end: if the app has been there all the time, that is a
// drain of its own.
func TestASignalLongAfterAHook(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Fatalf("the drain ended as %s", report.Outcome)
		}
		after(time.Minute)
		p.counter.set(1)
		p.Stop()
		after(2 * time.Second)
		if got := p.Status(t.Context()).Phase; got != Propagating {
			t.Errorf("it is %s", got)
		}
		p.counter.set(0)
		p.app.set(false)
		if _, err := p.ended(time.Now()); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAppThatStaysIsDeregisteredAtTheEndOfTheGracePeriod(t *testing.T) {
	for _, known := range []bool{true, false} {
		inPod(t, func(c *Config, _ *pod) {
			if !known {
				c.App = nil
			}
		}, func(t *testing.T, p *pod) {
			p.Stop()
			began := time.Now()
			after(28900 * time.Millisecond)
			if p.deregistered() > 0 {
				t.Error("deregistered while the app may live")
			}
			took, err := p.ended(began)
			if err != nil || p.deregistered() != 1 {
				t.Fatalf("%v, deregistered %d times", err, p.deregistered())
			}
			about(t, "the grace period less a second", took, 29*time.Second)
		})
	}
}

func TestWithNothingToWaitForRunEndsWithTheDrain(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.App, c.Registries = nil, nil }, func(t *testing.T, p *pod) {
		p.Stop()
		took, err := p.ended(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		about(t, "endpoints and quiet", took, 4*time.Second)
	})
}

func TestSIGINTEndsTheDrainAtOnce(t *testing.T) {
	for _, test := range []struct {
		name     string
		inFlight int64
		signals  func(p *pod)
		want     error
	}{
		{"after SIGTERM, work in flight", 2, func(p *pod) { p.Stop(); after(time.Second); p.Interrupt() }, ErrWorkLeft},
		{"after SIGTERM, nothing in flight", 0, func(p *pod) { p.Stop(); after(time.Second); p.Interrupt() }, nil},
		{"right after SIGTERM", 0, func(p *pod) { p.Stop(); p.Interrupt() }, nil},
		{"in a drain", 1, func(p *pod) { p.Begin(CauseCall); after(time.Second); p.Interrupt() }, ErrWorkLeft},
		{"twice", 0, func(p *pod) { p.Interrupt(); after(time.Second); p.Interrupt() }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			inPod(t, nil, func(t *testing.T, p *pod) {
				p.counter.set(test.inFlight)
				began := time.Now()
				outcomes := make(chan Outcome, 1)
				test.signals(p)
				go func() {
					report, _ := p.hook()
					outcomes <- report.Outcome
				}()
				took, err := p.ended(began)
				if !errors.Is(err, test.want) || err != nil && test.want == nil {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if took > 2*time.Second {
					t.Errorf("took %v", took)
				}
				if got := <-outcomes; got != OutcomeCutShort {
					t.Errorf("the hook was told %s", got)
				}
				if p.deregistered() > 0 {
					t.Error("deregistered while the app lives")
				}
			})
		})
	}
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

// proxyCounter is a counter whose proxy can be told.
type proxyCounter struct {
	fakeCounter
	stopped, started int
	fails            int
}

func (p *proxyCounter) StopAccepting(context.Context) error {
	if p.fails > 0 {
		p.fails--
		return errBroken
	}
	p.stopped++
	return nil
}

func (p *proxyCounter) StartAccepting(context.Context) error { p.started++; return nil }

func TestAProxyIsToldOfTheDrain(t *testing.T) {
	proxy := &proxyCounter{fails: 2}
	inPod(t, func(c *Config, _ *pod) {
		c.Counters = []NamedCounter{{Name: "proxy", Counter: proxy}}
	}, func(t *testing.T, p *pod) {
		p.hook()
		if proxy.stopped != 1 || proxy.started != 1 { // an earlier process may have stopped it

			t.Fatalf("told to stop %d times, to start %d times", proxy.stopped, proxy.started)
		}
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if proxy.started != 2 {
			t.Error("not told that the drain was taken back")
		}
	})
}

func TestFileLikeCountersWakeTheDrain(t *testing.T) {
	inPod(t, func(c *Config, p *pod) {
		p.counter.wake = make(chan struct{}, 1)
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

func TestReportsAreBounded(t *testing.T) {
	long := errors.New(strings.Repeat("ä very long error ", 200))
	inPod(t, func(c *Config, _ *pod) {
		c.Registries, c.Counters = nil, nil
		for i := range 4 {
			c.Registries = append(c.Registries, NamedRegistry{Name: fmt.Sprintf("registry%d", i), Registry: wordy{err: func() error {
				return fmt.Errorf("%v at %v: %w", i, time.Now(), long)
			}}})
			c.Counters = append(c.Counters, NamedCounter{Name: fmt.Sprintf("counter%d", i), Counter: wordy{err: func() error { return long }}})
		}
	}, func(t *testing.T, p *pod) {
		report, _ := p.hook()
		text, err := json.MarshalIndent(report, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if len(text) >= 10<<10 {
			t.Errorf("the report has %d bytes", len(text))
		}
		if len(report.Timeline) != timelineLimit {
			t.Errorf("the timeline has %d events, want the limit of %d for this test to mean anything", len(report.Timeline), timelineLimit)
		}
	})
}

// wordy fails with a new error each time.
type wordy struct{ err func() error }

func (w wordy) Withdraw(context.Context) error          { return w.err() }
func (w wordy) Withdrawn(context.Context) (bool, error) { return false, w.err() }
func (w wordy) Restore(context.Context) error           { return w.err() }
func (w wordy) Deregister(context.Context) error        { return w.err() }
func (w wordy) Count(context.Context) (Reading, error)  { return Reading{}, w.err() }

func TestTotalsAddUp(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		began := time.Now()
		after(10 * time.Second)
		p.hook()
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Second)
		p.Begin(CauseCall)
		after(time.Second)
		totals := p.Totals(t.Context())
		var sum time.Duration
		for _, spent := range totals.Seconds {
			sum += spent
		}
		if all := time.Since(began); sum != all {
			t.Errorf("the phases add up to %v of %v: %v", sum, all, totals.Seconds)
		}
		if totals.Drains[OutcomeDrained].Count != 1 || totals.Registries["registry"]["withdraw"].Calls != 2 {
			t.Errorf("%+v", totals)
		}
	})
}

func TestNeededBudget(t *testing.T) {
	c := Config{EndpointsWait: 3 * time.Second, Quiet: time.Second, GracePeriod: 30 * time.Second, Reserve: 5 * time.Second}
	if needed, _ := c.NeededBudget(); needed != 4*time.Second || c.Budget() != 25*time.Second {
		t.Errorf("needs %v of %v", needed, c.Budget())
	}
	c.Registries = []NamedRegistry{{Name: "eureka", ServerCache: 30 * time.Second, ClientRefresh: 30 * time.Second}, {Name: "consul", ClientRefresh: time.Second}}
	needed, sum := c.NeededBudget()
	if needed != 61*time.Second || sum != "eureka server cache 30s + client refresh 30s + quiet 1s" {
		t.Errorf("needs %v: %s", needed, sum)
	}
}

// finder is a registry that holds an earlier pod's registration, with its
// withdrawal, until the app has started.
type finder struct {
	fakeRegistry
	appRegisters time.Time
	cleared      time.Time
	finds        int
}

func (f *finder) Find(context.Context) (string, error) {
	f.finds++
	if time.Now().Before(f.appRegisters) {
		return "an earlier pod's, OUT_OF_SERVICE", nil
	}
	if f.cleared.IsZero() {
		f.cleared = time.Now()
	}
	return "the pod's own", nil
}

func TestALeftoverIsClearedWhenTheAppHasRegistered(t *testing.T) {
	for name, test := range map[string]struct {
		listensAfter   time.Duration // its start
		registersAfter time.Duration // it listens
		change         func(*Config, *pod)
		within         time.Duration // after that the leftover is gone
	}{
		"at once":                  {0, time.Second, nil, 2 * time.Second},
		"after a slow start":       {70 * time.Second, time.Second, nil, 2 * time.Second},
		"after a very slow start":  {20 * time.Minute, time.Second, nil, 2 * time.Second},
		"long after it listens":    {0, 70 * time.Second, nil, 2 * time.Minute},
		"its port is not known":    {0, 70 * time.Second, func(c *Config, _ *pod) { c.App = nil }, 2 * time.Minute},
		"its port cannot be asked": {0, 70 * time.Second, func(_ *Config, p *pod) { p.app.mode = failing }, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			f := &finder{}
			inPod(t, func(c *Config, p *pod) {
				f.appRegisters = time.Now().Add(test.listensAfter + test.registersAfter)
				c.Registries[0].Registry = f
				if test.listensAfter > 0 {
					p.app.set(false)
				}
				if test.change != nil {
					test.change(c, p)
				}
			}, func(t *testing.T, p *pod) {
				after(test.listensAfter)
				p.app.set(true)
				after(time.Hour)
				if f.cleared.IsZero() || f.cleared.After(f.appRegisters.Add(test.within)) {
					t.Errorf("cleared at %v, and the app registered at %v", f.cleared, f.appRegisters)
				}
				if f.finds > 20 {
					t.Errorf("%d look-ups in an hour", f.finds)
				}
			})
		})
	}
}

// What a withdrawal leaves behind although it was taken back is looked for often
// too, whether clients are told of the instance meanwhile or not.
func TestALeftoverIsClearedAfterADrainThatWasTakenBack(t *testing.T) {
	for _, listed := range []bool{true, false} {
		t.Run(fmt.Sprintf("listed %v", listed), func(t *testing.T) {
			f := &finder{}
			inPod(t, func(c *Config, _ *pod) {
				c.Registries[0].Registry = f
				c.Registries[0].ServerCache = 30 * time.Second
			}, func(t *testing.T, p *pod) {
				after(time.Hour) // it was found long ago
				f.set(func() { f.registered = listed })
				p.hook()
				f.appRegisters = time.Now().Add(500 * time.Millisecond)
				f.cleared, f.finds = time.Time{}, 0
				if err := p.TakeBack(t.Context()); err != nil {
					t.Fatal(err)
				}
				after(time.Hour)
				if f.cleared.IsZero() || f.cleared.After(f.appRegisters.Add(time.Second)) {
					t.Errorf("cleared at %v, and the app registered at %v", f.cleared, f.appRegisters)
				}
				if f.finds > 20 {
					t.Errorf("%d look-ups in an hour", f.finds)
				}
			})
		})
	}
}

func TestAnEndedContextEndsRun(t *testing.T) {
	for _, draining := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := &fakeRegistry{registered: true}
			d := New(Config{
				GracePeriod: 30 * time.Second, Reserve: 5 * time.Second, Poll: time.Second, Quiet: time.Hour,
				Registries: []NamedRegistry{{Name: "r", Registry: r}},
			})
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- d.Run(ctx) }()
			synctest.Wait()
			if draining {
				d.Begin(CauseCall)
				after(time.Second)
			}
			began := time.Now()
			cancel()
			err := <-ran
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("draining %v: took %v", draining, took)
			}
			withdrawals, _, _ := r.seen()
			if !draining && (!errors.Is(err, context.Canceled) || withdrawals > 0) {
				t.Errorf("while serving: %v, after %d withdrawals", err, withdrawals)
			}
		})
	}
}
