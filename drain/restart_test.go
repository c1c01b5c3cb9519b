package drain

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const ms = time.Millisecond

// on makes the pod's app listen on these ports, and remembers what observers
// are told.
func on(notes *notebook, ports ...int) func(*Config, *pod) {
	return func(c *Config, p *pod) {
		p.app = startedApp(ports...)
		c.App = p.app
		c.Observers = []Observer{notes}
	}
}

// call calls the hook in the background, as a kubelet does that leaves the
// request open, and returns what ends the connection and where the answer comes.
func (p *pod) call() (breakOff func(), answers chan Report) {
	ctx, cancel := context.WithCancel(context.Background())
	answers = make(chan Report, 1)
	p.t.Cleanup(cancel)
	go func() {
		if report, err := p.PreStop(ctx); err == nil {
			answers <- report
		}
	}()
	synctest.Wait()
	return cancel, answers
}

// serves holds that the pod is in service again, and why.
func (p *pod) serves(notes *notebook, why string) {
	p.t.Helper()
	synctest.Wait()
	if !p.Ready() || p.phase() != Serving || p.withdrawn() {
		p.t.Fatalf("ready %v, phase %s, withdrawn %v, want the pod back in service", p.Ready(), p.phase(), p.withdrawn())
	}
	if got := notes.read(); !strings.Contains(got, "DrainTakenBack: ") || !strings.Contains(got, why) {
		p.t.Errorf("told\n%s\nwant DrainTakenBack with %q", got, why)
	}
}

func (p *pod) staysOut(why string) {
	p.t.Helper()
	synctest.Wait()
	if p.Ready() {
		p.t.Fatalf("ready, although %s", why)
	}
}

// Each row is a way in which a kubelet restarts a container. All of them end
// with the pod in service.
func TestEveryRestartIsSeen(t *testing.T) {
	const anew, over = "the app was only restarted: it listens anew on port ", "the pod is not being deleted"
	for name, test := range map[string]struct {
		ports  []int
		change func(*Config)
		play   func(p *pod)
		within time.Duration // after the last step
		why    string
	}{
		"a hung app is killed at the end of the grace period, and its port is gone for 200 ms": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				after(24 * time.Second)
				p.app.set(false)
				after(200 * ms)
				p.app.set(true)
			}, 100 * ms, anew + "8080",
		},
		"the same with no look in the gap": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				after(24 * time.Second)
				p.app.start(8080)
			}, 100 * ms, anew + "8080",
		},
		"the same after minutes in back-off": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				p.app.set(false)
				after(7 * time.Minute)
				p.app.set(true)
			}, 100 * ms, anew + "8080",
		},
		"one of two containers": {
			[]int{8080, 8081}, nil, func(p *pod) {
				p.hook()
				after(2 * time.Second)
				p.app.close(8081)
				after(3 * time.Second)
				p.app.start(8081)
			}, 100 * ms, anew + "8081",
		},
		"the first of two containers, with no gap": {
			[]int{8080, 8081}, nil, func(p *pod) {
				p.hook()
				after(2 * time.Second)
				p.app.start(8080)
			}, 100 * ms, anew + "8080",
		},
		"both containers, one after the other: the second one's hook finds the pod drained, and its app exits at once": {
			[]int{8080, 8081}, nil, func(p *pod) {
				p.hook()
				p.app.close(8080)
				after(time.Second)
				if _, err := p.PreStop(context.Background()); err != nil {
					p.t.Error(err)
				}
				p.app.close(8081)
				after(2 * time.Second)
				p.app.start(8080)
				p.app.start(8081)
			}, 100 * ms, anew + "8081",
		},
		"the hook is given up and its request left open": {
			[]int{8080}, nil, func(p *pod) {
				p.counter.set(1)
				p.call()
				after(5 * time.Second)
				p.app.set(false)
				after(300 * ms)
				p.app.set(true)
			}, 100 * ms, anew + "8080",
		},
		"counters are polled every second": {
			[]int{8080}, func(c *Config) { c.Poll = time.Second }, func(p *pod) {
				p.hook()
				after(2 * time.Second)
				p.app.set(false)
				after(100 * ms)
				p.app.set(true)
			}, 100 * ms, anew + "8080",
		},
		"the drain has expired": {
			[]int{8080}, nil, func(p *pod) {
				p.counter.set(1)
				p.hook()
				p.app.start(8080)
			}, 100 * ms, anew + "8080",
		},
		"the kubelet is restarted in the hook, and the app is healthy again": {
			[]int{8080}, nil, func(p *pod) {
				breakOff, _ := p.call()
				after(3 * time.Second)
				breakOff()
				after(27*time.Second + signalMargin)
			}, 100 * ms, over,
		},
		"the kubelet is restarted in the hook, calls it again, and is restarted again": {
			[]int{8080}, nil, func(p *pod) {
				breakOff, _ := p.call()
				after(3 * time.Second)
				breakOff()
				after(10 * time.Second)
				breakOff, _ = p.call()
				breakOff()
				after(30*time.Second + signalMargin)
			}, 100 * ms, over,
		},
		"the probe succeeds again while the hook waits": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				after(24*time.Second + signalMargin)
			}, 100 * ms, over,
		},
		"the kernel is asked in vain while the app is restarted": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				after(time.Second)
				p.app.change(func() { p.app.mode = failing })
				after(time.Second)
				p.app.start(8080)
				after(time.Second)
				p.app.change(func() { p.app.mode = healthy })
			}, 100 * ms, anew + "8080",
		},
		"an app that never listened before its hook": {
			[]int{8080}, nil, func(p *pod) {
				p.app.set(false)
				p.hook()
				p.app.set(true)
				after(24*time.Second + signalMargin)
			}, 100 * ms, over,
		},
		"one that begins to listen long after the grace period": {
			[]int{8080}, nil, func(p *pod) {
				p.app.set(false)
				after(time.Second)
				p.hook()
				after(10 * time.Minute)
				p.app.set(true)
			}, 100 * ms, over,
		},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, func(c *Config, p *pod) {
				on(notes, test.ports...)(c, p)
				if test.change != nil {
					test.change(c)
				}
			}, func(t *testing.T, p *pod) {
				after(10 * time.Second)
				test.play(p)
				after(test.within)
				p.serves(notes, test.why)
				// The next hook is another drain.
				p.counter.set(0)
				if report, _ := p.hook(); report.Outcome != OutcomeDrained || report.Cause != CauseHook {
					t.Errorf("the next drain ended as %s", report.Outcome)
				}
			})
		})
	}
}

// What looks like a restart and is none, or may be none.
func TestWhatIsNoRestart(t *testing.T) {
	for name, test := range map[string]struct {
		play func(p *pod)
		wait time.Duration
		why  string
	}{
		"a reload hands the port over": {
			func(p *pod) {
				p.hook()
				for range 3 {
					p.app.join(8080)
					after(100 * ms)
					p.app.leave(8080)
					after(100 * ms)
				}
			}, 10 * time.Second, "old and new listened side by side",
		},
		"a prefork server loses workers and gains others": {
			func(p *pod) {
				p.app.join(8080)
				p.app.join(8080)
				p.hook()
				p.app.leave(8080)
				p.app.join(8080)
			}, 10 * time.Second, "some of them were there all the time",
		},
		"the pod is deleted while its app starts": {
			func(p *pod) {
				p.app.set(false)
				after(time.Second)
				p.hook()
				p.app.set(true)
			}, 10 * time.Second, "it did not listen when the hook was called",
		},
		"the pod is deleted while its app starts, and it crashes once": {
			func(p *pod) {
				p.app.set(false)
				after(time.Second)
				p.counter.set(1)
				p.call()
				p.app.set(true)
				after(time.Second)
				p.app.set(false)
				after(time.Second)
				p.app.set(true)
			}, 10 * time.Second, "it did not listen when the hook was called",
		},
		"the pod is deleted right when its app has crashed": {
			func(p *pod) {
				p.app.set(false) // no look has seen it
				p.hook()
				p.app.set(true)
			}, 10 * time.Second, "it did not listen when the hook was called",
		},
		"the pod is deleted while one of its containers is restarted": {
			func(p *pod) {
				p.hook() // of the other container's restart
				after(time.Second)
				p.app.close(8081)
				after(time.Second)
				p.hook() // of the deletion
				p.app.start(8081)
			}, 10 * time.Second, "it did not listen when the last hook was called",
		},
		"one of two hooks is given up, the other waits": {
			func(p *pod) {
				p.counter.set(1)
				p.call()
				p.call()
				after(5 * time.Second)
				p.app.start(8081)
			}, 10 * time.Second, "another container's hook waits for its requests",
		},
		"a hook breaks off within the grace period": {
			func(p *pod) {
				breakOff, _ := p.call()
				after(time.Second)
				breakOff()
			}, 28*time.Second + signalMargin, "a kubelet may call again",
		},
		"a kubelet that was restarted calls the hook again, and begins a grace period": {
			func(p *pod) {
				breakOff, _ := p.call()
				after(time.Second)
				breakOff()
				after(20 * time.Second)
				p.call()
			}, 29*time.Second + signalMargin, "its grace period has begun with that call",
		},
		"one of two containers does not come back": {
			func(p *pod) {
				p.hook()
				p.app.close(8081)
			}, time.Hour, "one of its ports is not listened on",
		},
		"SIGTERM has come": {
			func(p *pod) {
				p.call()
				p.Stop()
				after(10 * time.Second)
				p.app.start(8080)
			}, 10 * time.Second, "SIGTERM has come",
		},
		"somebody has asked for the drain": {
			func(p *pod) {
				p.Begin(CauseCall)
				p.hook()
				p.app.start(8080)
			}, time.Hour, "somebody has asked for it",
		},
		"somebody has asked for the drain later": {
			func(p *pod) {
				p.hook()
				p.Begin(CauseCall)
				p.app.start(8080)
			}, time.Hour, "somebody has asked for it",
		},
		"somebody has asked for the drain long before": {
			func(p *pod) {
				p.Begin(CauseCall)
				after(time.Hour)
				p.hook()
				p.app.start(8080)
			}, time.Hour, "somebody has asked for it",
		},
		"the port cannot be looked at": {
			func(p *pod) {
				p.app.change(func() { p.app.mode = failing })
				p.hook()
				p.app.start(8080)
			}, time.Hour, "nothing is known of the app",
		},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, on(notes, 8080, 8081), func(_ *testing.T, p *pod) {
				after(10 * time.Second)
				test.play(p)
				after(test.wait)
				p.staysOut(test.why)
			})
		})
	}
}

// A port that cannot be looked at leaves it to the postStart hook, also where a
// kubelet has given the preStop hook up and left its request open.
func TestPostStartUnderAHookThatWasGivenUp(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, _ *pod) {
		c.App, c.Observers = nil, []Observer{notes}
	}, func(_ *testing.T, p *pod) {
		p.counter.set(1)
		p.call()
		after(5 * time.Second)
		p.PostStart()
		after(24 * time.Second)
		p.staysOut("the hook may be another container's")
		after(time.Second + signalMargin)
		p.serves(notes, "postStart")
	})
	inPod(t, func(c *Config, _ *pod) { c.App = nil }, func(_ *testing.T, p *pod) {
		p.counter.set(1)
		p.call()
		after(5 * time.Second)
		p.PostStart()
		after(time.Second)
		p.call() // the pod's deletion
		after(time.Hour)
		p.staysOut("another hook was called after the app's start")
	})
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
				p.counter.wake = make(chan struct{}, 1)
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
// anew: the SIGTERM at its end belongs to the same drain.
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
		p.counter.wake, p.counter.knows = make(chan struct{}, 1), true
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

// A kernel that does not number its sockets leaves it to a look in the gap.
func TestListenersWithoutNumbers(t *testing.T) {
	notes := &notebook{}
	inPod(t, on(notes, 8080), func(_ *testing.T, p *pod) {
		unnumbered := func() { p.app.change(func() { p.app.listeners[8080] = []uint64{0} }) }
		unnumbered()
		after(2 * time.Second)
		p.hook()
		after(2 * time.Second)
		unnumbered()
		after(time.Second)
		p.staysOut("nobody has seen a new start")
		p.app.set(false)
		after(100 * ms)
		unnumbered()
		after(100 * ms)
		p.serves(notes, "it listens anew")
	})
}

func TestTheAppIsLookedAtFromTheStart(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.Poll, c.Registries = time.Hour, nil }, func(t *testing.T, p *pod) {
		looks := func(within time.Duration) int {
			p.app.mu.Lock()
			before := p.app.looks
			p.app.mu.Unlock()
			after(within)
			p.app.mu.Lock()
			defer p.app.mu.Unlock()
			return p.app.looks - before
		}
		if n := looks(10 * time.Second); n < 9 || n > 11 {
			t.Errorf("%d looks in 10 s while serving, want one a second", n)
		}
		p.counter.set(1)
		p.call()
		for range 2 { // before the end of the grace period, and after
			if n := looks(10 * time.Second); n < 190 || n > 210 {
				t.Errorf("%d looks in 10 s of a drain, want twenty a second", n)
			}
			p.app.set(false)
			after(time.Minute)
		}
	})
}
