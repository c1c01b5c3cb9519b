package drain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

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
			deregistered := make(chan time.Time, 1)
			inPod(t, func(c *Config, p *pod) {
				c.Observers = []Observer{notes}
				p.registry.onDone = func(op string, _ time.Time, err error) {
					if op == "deregister" && err == nil {
						deregistered <- time.Now()
					}
				}
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
				if early := graceEnd.Add(test.killed).Sub(<-deregistered); test.known && early > 0 {
					t.Errorf("deregistered %v before the app was gone: it would register itself again", early)
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

// A kubelet and its container runtime are restarted: the hook is called again,
// and SIGTERM sent again. One drain, one report, no request lost.
func TestARepeatedSIGTERMIsOne(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.counter.set(1)
		began := time.Now()
		breakOff, _ := p.call()
		after(10 * ms)
		p.Stop()
		after(5 * time.Second)
		breakOff()
		after(2 * time.Second)
		p.Stop()
		_, answers := p.call()
		p.Stop()
		after(5 * time.Second)
		p.counter.set(0)
		report := <-answers
		if report.Outcome != OutcomeDrained || report.Seconds < 12 {
			t.Errorf("%s after %v s", report.Outcome, report.Seconds)
		}
		p.app.set(false)
		if took, err := p.ended(began); err != nil || p.deregistered() != 1 || took > 15*time.Second {
			t.Errorf("%v after %v, deregistered %d times", err, took, p.deregistered())
		}
	})
}
