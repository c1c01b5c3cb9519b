package drain

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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

// halfStopper acts, and then fails: its health check is failed, and its
// listeners could not be told.
type halfStopper struct {
	fakeCounter
	mu      sync.Mutex
	stopped bool
	starts  int
}

func (h *halfStopper) StopAccepting(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	return errors.New("drain_listeners: 503")
}

func (h *halfStopper) StartAccepting(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = false
	h.starts++
	return nil
}

func (h *halfStopper) is() (stopped bool, starts int) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stopped, h.starts
}

func TestAProxyThatWasToldHalfWayIsToldToComeBack(t *testing.T) {
	proxy := &halfStopper{}
	inPod(t, func(c *Config, _ *pod) { c.Counters = []NamedCounter{{Name: "proxy", Counter: proxy}} }, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(10 * time.Second)
		if stopped, _ := proxy.is(); !stopped {
			t.Fatal("it was not told")
		}
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stopped, _ := proxy.is(); stopped {
			t.Error("the drain was taken back, and the proxy still sends its clients away")
		}
	})
}

// A sidecar that was killed in its drain has left its proxy told.
func TestWhatAnEarlierProcessLeftIsUndoneAtStart(t *testing.T) {
	proxy := &halfStopper{stopped: true}
	inPod(t, func(c *Config, _ *pod) { c.Counters = []NamedCounter{{Name: "proxy", Counter: proxy}} }, func(t *testing.T, _ *pod) {
		if stopped, starts := proxy.is(); stopped || starts != 1 {
			t.Errorf("stopped %v, told to start %d times", stopped, starts)
		}
		after(time.Hour)
		if _, starts := proxy.is(); starts != 1 {
			t.Errorf("told to start %d times", starts)
		}
	})
}

func TestTheUnreadableIsNamedBesideTheBusy(t *testing.T) {
	for _, order := range [][]string{{"tcp", "nginx"}, {"nginx", "tcp"}} {
		inPod(t, func(c *Config, _ *pod) {
			c.Counters = nil
			for _, name := range order {
				counter := &fakeCounter{inFlight: 3}
				if name == "nginx" {
					counter.mode = failing
				}
				c.Counters = append(c.Counters, NamedCounter{Name: name, Counter: counter})
			}
		}, func(t *testing.T, p *pod) {
			p.Begin(CauseCall)
			after(20 * time.Second)
			got := p.Status(t.Context()).WaitingFor
			if !strings.HasPrefix(got, "waiting for 3 requests: tcp 3, nginx to be readable (broken on purpose)") {
				t.Errorf("%q", got)
			}
		})
	}
}

type changedPanics struct{ fakeCounter }

func (*changedPanics) Changed(context.Context) <-chan struct{} { panic("broken on purpose") }

func TestACounterWhoseNoticesPanicIsPolled(t *testing.T) {
	c := &changedPanics{}
	inPod(t, func(cfg *Config, _ *pod) { cfg.Counters = []NamedCounter{{Name: "x", Counter: c}} }, func(t *testing.T, p *pod) {
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Errorf("%s: %s", report.Outcome, report.WaitingFor)
		}
	})
}

// slowToNotice takes a moment to see that its context has ended.
type slowToNotice struct{ fakeRegistry }

func (*slowToNotice) Withdrawn(ctx context.Context) (bool, error) {
	<-ctx.Done()
	after(20 * ms)
	return false, ctx.Err()
}

func TestACallOfTheDrainBeforeDoesNotCount(t *testing.T) {
	s := &slowToNotice{fakeRegistry{registered: true}}
	inPod(t, func(c *Config, _ *pod) {
		s.changed = time.Now().Add(-time.Hour)
		c.Registries = []NamedRegistry{{Name: "registry", Registry: s}}
	}, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(500 * ms)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.TakeBack(ended)
		p.Begin(CauseCall)
		after(200 * ms)
		if r := p.Status(t.Context()).Registries[0]; r.Failures != 0 {
			t.Errorf("the new drain counts a failure of the one before, which was called off: %+v", r)
		}
	})
}

// What begins while the process ends does not take the order to deregister away.
func TestWhatBeginsWhileTheProcessEnds(t *testing.T) {
	for name, begin := range map[string]func(*Drainer){
		"a call":                         func(d *Drainer) { d.Begin(CauseCall) },
		"a hook that is delivered again": func(d *Drainer) { go func() { _, _ = d.PreStop(context.Background()) }() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
				app := startedApp()
				d := New(Config{
					GracePeriod: 10 * time.Second, Reserve: 5 * time.Second, Poll: 100 * ms, App: app,
					Registries: []NamedRegistry{{Name: "r", Registry: r}},
				})
				ran := make(chan error, 1)
				go func() { ran <- d.Run(context.Background()) }()
				synctest.Wait()
				report, _ := d.PreStop(context.Background())
				after(time.Until(report.Began.Add(10*time.Second + 10*ms)))
				r.mu.Lock()
				r.mode = failing
				r.mu.Unlock()
				d.Stop() // when the grace period is over, as a native sidecar is told
				app.set(false)
				synctest.Wait()
				begin(d)
				after(100 * ms)
				r.mu.Lock()
				r.mode = healthy
				r.mu.Unlock()
				<-ran
				if _, n, _ := r.seen(); n == 0 {
					t.Error("the instance stays in its registry")
				}
			})
		})
	}
}

func TestOnlyWhatWasNotDeregisteredIsSaidToBeSo(t *testing.T) {
	for range 40 { // it was by chance
		var log locked
		restore := logTo(&log)
		synctest.Test(t, func(*testing.T) {
			hangs := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
			good := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
			app := startedApp()
			d := New(Config{
				GracePeriod: 30 * time.Second, Poll: 100 * ms, App: app,
				Registries: []NamedRegistry{{Name: "hangs", Registry: hangs}, {Name: "good", Registry: good}},
			})
			ran := make(chan error, 1)
			go func() { ran <- d.Run(context.Background()) }()
			synctest.Wait()
			d.Stop()
			after(2 * time.Second)
			hangs.mu.Lock()
			hangs.mode = hanging
			hangs.mu.Unlock()
			app.set(false)
			<-ran
		})
		restore()
		said := func(name string) bool {
			return slices.ContainsFunc(strings.Split(log.String(), "\n"), func(line string) bool {
				return strings.Contains(line, "not deregistered in time") && strings.Contains(line, "registry="+name)
			})
		}
		if said("good") || !said("hangs") {
			t.Fatalf("the log says of good %v, of hangs %v", said("good"), said("hangs"))
		}
	}
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

func TestANegativeThresholdIsNone(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.Threshold = -1 }, func(t *testing.T, p *pod) {
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Errorf("%s: %s", report.Outcome, report.WaitingFor)
		}
	})
}

// The texts of an end say what has ended the drain.
func TestWhatCutADrainShort(t *testing.T) {
	for name, test := range map[string]struct {
		cut  func(p *pod, endServer func())
		want string
	}{
		"SIGINT":                 {func(p *pod, _ func()) { p.Interrupt() }, "(ended by SIGINT)"},
		"the server's end":       {func(_ *pod, endServer func()) { endServer() }, "(the sidecar could no longer serve)"},
		"SIGINT after a SIGTERM": {func(p *pod, _ func()) { p.Stop(); p.Stop(); p.Interrupt() }, "(ended by SIGINT)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				notes := &notebook{}
				counter := &fakeCounter{inFlight: 1}
				p := &pod{t: t, Drainer: New(Config{
					GracePeriod: 30 * time.Second, Reserve: 5 * time.Second, Poll: 100 * ms,
					Counters: []NamedCounter{{Name: "counter", Counter: counter}}, Observers: []Observer{notes},
				})}
				ctx, end := context.WithCancel(context.Background())
				defer end()
				ran := make(chan error, 1)
				go func() { ran <- p.Run(ctx) }()
				p.Begin(CauseCall)
				after(time.Second)
				test.cut(p, end)
				<-ran
				if got := notes.read(); !strings.Contains(got, "DrainExpired: cut short after 1.0 s "+test.want+", waiting for 1 request") {
					t.Errorf("told\n%s", got)
				}
			})
		})
	}
}
