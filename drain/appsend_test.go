package drain

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// The pod's grace period is shorter than the sidecar was told. A native sidecar
// gets SIGTERM around the moment in which its app is killed, with 2 s left.
func TestTheAppsEndEndsTheDrain(t *testing.T) {
	for name, test := range map[string]struct {
		grace  time.Duration // of the kubelet
		signal time.Duration // after its end
		killed time.Duration // the app, after its end
		silent bool          // nobody ever listened
		work   bool
	}{
		"SIGTERM before the app's end":          {10 * time.Second, 0, 300 * ms, false, true},
		"SIGTERM right after it":                {10 * time.Second, 8 * ms, 0, false, true},
		"SIGTERM half a second after it":        {10 * time.Second, 500 * ms, 0, false, true},
		"nothing in flight, yet not forgotten":  {3 * time.Second, 8 * ms, 0, false, false},
		"--grace-period=1":                      {time.Second, 10 * ms, 0, false, true},
		"--grace-period=1, the app dies slowly": {time.Second, 10 * ms, 300 * ms, false, true},
		"an app that never listened":            {10 * time.Second, 8 * ms, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, func(c *Config, p *pod) {
				on(notes, 8080)(c, p)
				p.counter.knows = true
				p.counter.changes = make(chan struct{}, 1)
				if test.silent {
					p.app.set(false)
					p.app.others = []int{9090}
				}
			}, func(t *testing.T, p *pod) {
				after(10 * time.Second)
				if test.work {
					p.counter.set(2)
				}
				_, answers := p.call()
				began := time.Now()
				after(test.grace)
				go func() {
					after(test.killed)
					p.app.set(false)
					p.counter.set(0) // its connections are gone with it
				}()
				after(test.signal)
				told := time.Now()
				p.Stop()
				_, err := p.ended(began)
				if took := time.Since(told); took > 1500*ms {
					t.Errorf("the process ended %v after SIGTERM, want within 2 s less what the last events take", took)
				}
				report := <-answers
				if report.Outcome != OutcomeExpired || !strings.Contains(report.Reason, "LASTCALL_GRACE_PERIOD=30s") {
					t.Errorf("%s, %q", report.Outcome, report.Reason)
				}
				if test.work && (!errors.Is(err, ErrWorkLeft) || report.InFlight == nil || *report.InFlight != 2 || !strings.Contains(report.WaitingFor, "2 requests")) && test.grace > 5*time.Second {
					t.Errorf("ended with %v, in flight %v, %s", err, report.InFlight, report.WaitingFor)
				}
				if got := notes.read(); !strings.Contains(got, "DrainExpired: expired after ") || !strings.Contains(got, "--grace-period") {
					t.Errorf("told\n%s", got)
				}
				if p.deregistered() != 1 {
					t.Errorf("deregistered %d times", p.deregistered())
				}
			})
		})
	}
}

// A classic sidecar gets SIGTERM with the hook's arrival. Its app lives for all
// of its grace period, and so does the drain.
func TestTheAppLivesOnAfterAnEarlySIGTERM(t *testing.T) {
	proxy := &proxyCounter{}
	for name, test := range map[string]struct {
		late    time.Duration // SIGTERM, after the hook
		change  func(*Config, *pod)
		play    func(*pod)
		outcome Outcome
	}{
		"it listens":                       {10 * ms, nil, func(*pod) {}, OutcomeDrained},
		"it listens, and the node is slow": {1500 * ms, nil, func(*pod) {}, OutcomeDrained},
		"its proxy closes its listeners, as it was told": {
			10 * ms, func(c *Config, _ *pod) { c.Counters = append(c.Counters, NamedCounter{Name: "proxy", Counter: proxy}) },
			func(p *pod) { after(3 * time.Second); p.app.set(false) }, OutcomeDrained,
		},
		"it closes its listener at once": {10 * ms, nil, func(p *pod) { p.app.set(false) }, OutcomeDrained},
		"it closes its listener late, and works on its connections": {
			10 * ms, func(_ *Config, p *pod) { p.counter.knows, p.counter.open = true, 1 },
			func(p *pod) { after(3 * time.Second); p.app.set(false) }, OutcomeDrained,
		},
		"a slow node, and it works on its connections": {
			3 * time.Second, func(_ *Config, p *pod) { p.counter.knows, p.counter.open = true, 1 },
			// Then it looks like a native sidecar's end.
			func(p *pod) { p.app.set(false) }, OutcomeExpired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inPod(t, test.change, func(t *testing.T, p *pod) {
				p.counter.set(1)
				_, answers := p.call()
				after(test.late)
				p.Stop()
				test.play(p)
				after(15 * time.Second)
				select {
				case report := <-answers:
					t.Fatalf("%s while a request was in flight: %s", report.Outcome, report.Reason)
				default:
				}
				p.counter.set(0)
				p.counter.mu.Lock()
				p.counter.open = 0
				p.counter.mu.Unlock()
				if report := <-answers; report.Outcome != test.outcome {
					t.Errorf("%s: %s", report.Outcome, report.Reason)
				}
			})
		})
	}
}

// A kubelet that was restarted calls the hook again, and its grace period begins
// again: the SIGTERM at its end belongs to the same drain.
func TestASIGTERMAfterAHookThatWasCalledAgain(t *testing.T) {
	notes := &notebook{}
	inPod(t, on(notes, 8080), func(t *testing.T, p *pod) {
		breakOff, _ := p.call()
		after(3 * time.Second)
		breakOff()
		after(10 * time.Second)
		p.call()
		after(30*time.Second + 10*ms)
		p.Stop()
		after(40 * ms)
		p.app.set(false)
		if _, err := p.ended(time.Now()); err != nil || p.deregistered() != 1 {
			t.Errorf("%v, deregistered %d times", err, p.deregistered())
		}
		if got := notes.read(); strings.Count(got, "Draining: ") != 1 {
			t.Errorf("told\n%s\nwant one drain", got)
		}
	})
}

// An app that was never seen to listen gives no sign: a SIGTERM that comes with
// the hook is a classic sidecar's, and the drain lasts.
func TestAnEarlySIGTERMOfASilentApp(t *testing.T) {
	inPod(t, silentApp(8080), func(t *testing.T, p *pod) {
		after(time.Second)
		_, answers := p.call()
		after(time.Second)
		p.Stop()
		if report := <-answers; report.Outcome != OutcomeExpired || report.Seconds != 25 {
			t.Errorf("%s after %v s", report.Outcome, report.Seconds)
		}
	})
}

// With no quiet time, the connections that end with the app must not look like
// work that has ended: a process is seen to listen a little longer than it has
// connections.
func TestAnAppThatIsKilledHasNotDrained(t *testing.T) {
	inPod(t, func(c *Config, p *pod) {
		on(&notebook{}, 8080)(c, p)
		c.Quiet, c.Registries = 0, nil
		p.counter.changes, p.counter.knows = make(chan struct{}, 1), true
	}, func(t *testing.T, p *pod) {
		p.counter.set(2)
		_, answers := p.call()
		after(10 * time.Second)
		p.Stop()
		p.counter.set(0)
		after(200 * ms)
		p.app.set(false)
		if report := <-answers; report.Outcome != OutcomeExpired {
			t.Errorf("%s", report.Outcome)
		}
	})
}

// An app that hangs is killed together with a native sidecar whose SIGTERM comes
// when the grace period has ended in the hook: 2 s later. By then the outcome is
// told. The instance stays withdrawn: the app would register itself again.
func TestAHungAppIsKilledWithTheSidecar(t *testing.T) {
	notes := &notebook{}
	inPod(t, on(notes, 8080), func(t *testing.T, p *pod) {
		p.counter.set(1)
		_, answers := p.call()
		after(3 * time.Second) // the pod's grace period
		told := time.Now()
		p.Stop()
		if report := <-answers; report.Outcome != OutcomeExpired || !strings.Contains(report.Reason, "LASTCALL_GRACE_PERIOD=30s") {
			t.Errorf("%s: %s", report.Outcome, report.Reason)
		}
		if took, err := p.ended(told); !errors.Is(err, ErrWorkLeft) || p.deregistered() != 0 || !p.withdrawn() || took > 1500*ms {
			t.Errorf("%v after %v, deregistered %d times", err, took, p.deregistered())
		}
		if got := notes.read(); !strings.Contains(got, "DrainExpired: ") {
			t.Errorf("told\n%s", got)
		}
	})
}

// A classic sidecar's app that ends in the middle of the drain, and was told
// nothing that would close its listener, is gone.
func TestTheAppsEndUnderAClassicSidecar(t *testing.T) {
	notes := &notebook{}
	inPod(t, on(notes, 8080), func(t *testing.T, p *pod) {
		p.counter.set(1)
		began := time.Now()
		_, answers := p.call()
		after(10 * ms)
		p.Stop()
		after(10 * time.Second)
		p.app.set(false)
		if report := <-answers; report.Outcome != OutcomeExpired || report.Reason == "" {
			t.Errorf("%s: %s", report.Outcome, report.Reason)
		}
		if took, err := p.ended(began); !errors.Is(err, ErrWorkLeft) || p.deregistered() != 1 || took > 12*time.Second {
			t.Errorf("%v after %v, deregistered %d times", err, took, p.deregistered())
		}
	})
}

// A classic sidecar's app that is still starting when its pod is deleted, and
// ignores its SIGTERM, would register itself again: it is waited for.
func TestAnAppThatIsStartingUnderAClassicSidecar(t *testing.T) {
	for name, test := range map[string]struct {
		listens time.Duration // after the hook; 0: never
		told    time.Duration // SIGTERM after the hook
		least   time.Duration // that the process stays
		most    time.Duration
	}{
		"it never listens":           {0, 10 * ms, 29 * time.Second, 30 * time.Second},
		"it listens for a while":     {10 * time.Second, 10 * ms, 15 * time.Second, 16 * time.Second},
		"a native sidecar's is gone": {0, 8 * time.Second, 8 * time.Second, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inPod(t, func(c *Config, p *pod) { p.app = &fakeApp{}; c.App = p.app }, func(t *testing.T, p *pod) {
				began := time.Now()
				p.call()
				after(test.told)
				p.Stop()
				if test.listens > 0 {
					after(time.Until(began.Add(test.listens)))
					p.app.set(true)
					after(5 * time.Second)
					p.app.set(false)
				}
				took, err := p.ended(began)
				if err != nil || took < test.least || took > test.most || p.deregistered() != 1 {
					t.Errorf("%v after %v, deregistered %d times", err, took, p.deregistered())
				}
			})
		})
	}
}

// An app that ends by itself, with no SIGTERM, leaves the drain to its end.
func TestAnAppThatEndsByItself(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		_, answers := p.call()
		after(2 * time.Second)
		p.app.set(false)
		if report := <-answers; report.Outcome != OutcomeDrained || report.Seconds < 6 {
			t.Errorf("%s after %v s", report.Outcome, report.Seconds)
		}
	})
}
