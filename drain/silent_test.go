package drain

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func silentApp(others ...int) func(*Config, *pod) {
	return func(c *Config, p *pod) {
		p.app = &fakeApp{names: []int{8081}, others: others}
		c.App = p.app
		c.Registries = nil
	}
}

// The port is misspelt: the app listens on 8080.
func TestAWrongPortIsTold(t *testing.T) {
	const text = "nobody has ever listened on port 8081 of LASTCALL_APP_PORT: the app has not started, or the port is wrong; the pod listens on 8080, 9090"
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		silentApp(8080, 9090)(c, p)
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		after(59 * time.Second)
		if got := notes.read(); got != "" || p.Status(t.Context()).Warnings != nil {
			t.Errorf("told within a minute: %s", got)
		}
		after(2 * time.Second)
		if got := notes.read(); got != "AppPortSilent: "+text {
			t.Errorf("told %s", got)
		}
		if got := p.Status(t.Context()).Warnings; len(got) != 1 || got[0] != text {
			t.Errorf("the status warns of %q", got)
		}
		after(time.Hour)
		if got := notes.read(); got != "" {
			t.Errorf("told once more: %s", got)
		}
		if ports := p.Totals(t.Context()).Ports; len(ports) != 1 || !ports[0].Silent || ports[0].Listening {
			t.Errorf("counted are %+v", ports)
		}

		report, took := p.hook()
		if report.Outcome != OutcomeExpired || took != 25*time.Second {
			t.Errorf("the drain ended as %s after %v, want expired with the budget: it cannot have seen the work", report.Outcome, took)
		}
		got := notes.read()
		if strings.Count(got, "AppPortSilent: "+text) != 1 || !strings.Contains(got, "DrainExpired: the budget of 25s ended, waiting for 1s of quiet, somebody to listen on port 8081 of LASTCALL_APP_PORT, which nobody ever has, the pod listens on 8080, 9090") {
			t.Errorf("told\n%s", got)
		}
	})
}

func TestAPortThatIsSilentForAWhile(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		silentApp(8080)(c, p)
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		// The pod is deleted while its app starts: the drain waits for it...
		go func() {
			after(10 * time.Second)
			p.counter.set(1)
			p.app.set(true)
			after(5 * time.Second)
			p.counter.set(0)
		}()
		report, took := p.hook()
		if report.Outcome != OutcomeDrained || took < 16*time.Second || took > 17*time.Second {
			t.Errorf("%s after %v, want drained once it listens and has ended its work", report.Outcome, took)
		}
		if got := p.Status(t.Context()).Warnings; got != nil {
			t.Errorf("the status still warns of %q", got)
		}
	})
}

func TestSilentPorts(t *testing.T) {
	for name, test := range map[string]struct {
		ports, listen, others []int
		broken                bool
		outcome               Outcome
		tells                 string
	}{
		"all are listened on":             {[]int{8080, 8081}, []int{8080, 8081}, []int{9090}, false, OutcomeDrained, ""},
		"one of two is silent":            {[]int{8080, 8081}, []int{8080}, []int{9090}, false, OutcomeExpired, "port 8081 of"},
		"both are":                        {[]int{8080, 8081}, nil, []int{9090}, false, OutcomeExpired, "port 8080, 8081 of"},
		"the pod listens on nothing else": {[]int{8080}, nil, nil, false, OutcomeDrained, "the pod listens on no other"},
		"the kernel refuses the look":     {[]int{8080}, nil, []int{9090}, true, OutcomeDrained, ""},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, func(c *Config, p *pod) {
				p.app = &fakeApp{names: test.ports, others: test.others}
				for _, port := range test.listen {
					p.app.start(port)
				}
				if test.broken {
					p.app.mode = failing
				}
				c.App, c.Observers, c.Registries = p.app, []Observer{notes}, nil
			}, func(t *testing.T, p *pod) {
				after(time.Second)
				report, _ := p.hook()
				if report.Outcome != test.outcome {
					t.Errorf("%s, %s", report.Outcome, report.WaitingFor)
				}
				got := notes.read()
				if told := strings.Contains(got, "AppPortSilent"); told != (test.tells != "") || !strings.Contains(got, test.tells) {
					t.Errorf("told\n%s\nwant %q", got, test.tells)
				}
				if test.broken && len(p.Status(t.Context()).Warnings) != 1 {
					t.Error("the status does not warn that the app cannot be seen")
				}
			})
		})
	}
}

// A port that was listened on before is not silent, and an app whose port is not
// known has none.
func TestNothingIsSaidOfAnAppThatIsGone(t *testing.T) {
	for _, known := range []bool{true, false} {
		notes := &notebook{}
		inPod(t, func(c *Config, p *pod) {
			c.Observers = []Observer{notes}
			p.app.others = []int{9090}
			if !known {
				c.App = nil
			}
		}, func(t *testing.T, p *pod) {
			after(time.Second)
			p.app.set(false)
			after(time.Hour)
			if report, _ := p.hook(); report.Outcome != OutcomeDrained {
				t.Errorf("%s", report.Outcome)
			}
			if got := notes.read(); strings.Contains(got, "AppPortSilent") {
				t.Errorf("told\n%s", got)
			}
		})
	}
}

// For nobody there is no quiet time.
func TestNoQuietTimeForNobody(t *testing.T) {
	type world struct {
		t *testing.T
		p *pod
		c *fakeCounter
	}
	arrive := func(w world, n int64) {
		w.c.set(n)
		w.c.mu.Lock()
		w.c.open = n
		w.c.mu.Unlock()
	}
	for name, test := range map[string]struct {
		change func(*Config, *fakeCounter)
		play   func(w world)
		took   time.Duration
		within time.Duration
	}{
		"nobody came at all": {
			nil, func(world) {}, 3 * time.Second, 20 * ms,
		},
		"the last request ends while propagating": {
			nil, func(w world) {
				arrive(w, 1)
				after(500 * ms)
				arrive(w, 0)
			}, 3 * time.Second, 20 * ms,
		},
		"the last request ends while draining": {
			nil, func(w world) {
				arrive(w, 3)
				after(10 * time.Second)
				arrive(w, 0)
			}, 10 * time.Second, 20 * ms,
		},
		"one that came within the quiet time": {
			nil, func(w world) {
				after(2500 * ms)
				arrive(w, 1)
				arrive(w, 0)
			}, 3500 * ms, 80 * ms, // early looks are 50 ms apart
		},
		"one on a new connection, while draining": {
			nil, func(w world) {
				arrive(w, 1)
				after(9500 * ms)
				arrive(w, 2)
				after(500 * ms)
				arrive(w, 0)
			}, 10500 * ms, 20 * ms,
		},
		"an idle connection is left": {
			nil, func(w world) {
				arrive(w, 1)
				after(10 * time.Second)
				w.c.mu.Lock()
				w.c.open = 2
				w.c.mu.Unlock()
				w.c.set(0)
			}, 11 * time.Second, 20 * ms,
		},
		"a counter that knows of no connections": {
			func(c *Config, _ *fakeCounter) {
				c.Counters = append(c.Counters, NamedCounter{Name: "file", Counter: &fakeCounter{arrives: true}})
			}, func(world) {}, 4 * time.Second, 150 * ms,
		},
		"a counter that sees no arrivals": {
			func(_ *Config, f *fakeCounter) { f.arrives = false }, func(world) {}, 4 * time.Second, 150 * ms,
		},
		"no counter": {
			func(c *Config, _ *fakeCounter) { c.Counters = nil }, func(world) {}, 4 * time.Second, 150 * ms,
		},
		"it is polled": {
			func(_ *Config, f *fakeCounter) { f.wake = nil }, func(w world) {
				arrive(w, 3)
				after(10 * time.Second)
				arrive(w, 0)
			}, 10 * time.Second, 150 * ms,
		},
		"the app has ended, with its connections": {
			nil, func(w world) {
				arrive(w, 3)
				after(10 * time.Second)
				w.p.app.set(false)
				arrive(w, 0)
			}, 11 * time.Second, 20 * ms,
		},
	} {
		t.Run(name, func(t *testing.T) {
			counter := &fakeCounter{arrives: true, knows: true}
			inPod(t, func(c *Config, _ *pod) {
				counter.wake = make(chan struct{}, 1)
				c.Registries = nil
				c.Counters = []NamedCounter{{Name: "counter", Counter: counter}}
				if test.change != nil {
					test.change(c, counter)
				}
			}, func(t *testing.T, p *pod) {
				go test.play(world{t, p, counter})
				report, took := p.hook()
				if report.Outcome != OutcomeDrained || took < test.took || took > test.took+test.within {
					t.Errorf("%s after %v, want %v", report.Outcome, took, test.took)
				}
			})
		})
	}
}

// Notices of a busy app cost no more than a look every 50 ms before the drain
// waits for its work.
func TestEarlyLooksAreApart(t *testing.T) {
	counter := &fakeCounter{arrives: true}
	var reads atomic.Int64
	counter.onRead = func(Reading, error) { reads.Add(1) }
	inPod(t, func(c *Config, _ *pod) {
		counter.wake = make(chan struct{}, 1)
		c.Registries, c.EndpointsWait = nil, 10*time.Second
		c.Counters = []NamedCounter{{Name: "counter", Counter: counter}}
	}, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		before := reads.Load()
		for range 5000 {
			counter.set(1)
			counter.set(0)
			after(ms)
		}
		if n := reads.Load() - before; n < 90 || n > 110 {
			t.Errorf("%d readings in 5 s, want one every 50 ms", n)
		}
	})
}

// Why a counter cannot be read is told wherever people look.
func TestWhyACounterCannotBeRead(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, _ *pod) { c.Observers = []Observer{notes} }, func(t *testing.T, p *pod) {
		p.counter.mode = failing
		go func() {
			after(10 * time.Second)
			if got := p.Status(context.Background()).WaitingFor; !strings.Contains(got, "counter to be readable (broken on purpose)") {
				t.Errorf("waiting for %q", got)
			}
		}()
		report, _ := p.hook()
		if !strings.Contains(report.WaitingFor, "counter to be readable (broken on purpose)") || report.Outcome != OutcomeExpired {
			t.Errorf("%s, %s", report.Outcome, report.WaitingFor)
		}
		got := notes.read()
		if strings.Count(got, "CounterUnreadable: the counter counter cannot be read, and the drain waits until it can or the budget ends: broken on purpose") != 1 {
			t.Errorf("told\n%s", got)
		}
		if !strings.Contains(got, "DrainExpired: the budget of 25s ended, waiting for counter to be readable (broken on purpose)") {
			t.Errorf("told\n%s", got)
		}
		if n := p.Totals(t.Context()).Errors["counter"]; n < 10 {
			t.Errorf("%d readings have failed, want those of 25 s", n)
		}
	})
}

func TestOneReadingThatFailsIsNotTold(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		c.Observers = []Observer{notes}
		p.counter.mode = failing
	}, func(t *testing.T, p *pod) {
		p.counter.onRead = func(Reading, error) { p.counter.mode = healthy }
		p.hook()
		if got := notes.read(); strings.Contains(got, "CounterUnreadable") {
			t.Errorf("told\n%s", got)
		}
	})
}

// At start each counter is tried: once the app listens, or after a minute.
func TestCountersAreTriedAtStart(t *testing.T) {
	for name, test := range map[string]struct {
		known  bool // the app's port
		starts time.Duration
		heals  time.Duration // when the counter can be read
		warns  time.Duration // 0: never
	}{
		"the app listens":                 {true, 0, time.Hour, 5 * time.Second},
		"it starts slowly":                {true, 30 * time.Second, time.Hour, 35 * time.Second},
		"it never does":                   {true, time.Hour, time.Hour, time.Minute},
		"its port is not known":           {false, 0, time.Hour, time.Minute},
		"its page comes soon after":       {true, 10 * time.Second, 12 * time.Second, 0},
		"it can be read when it is asked": {false, 0, 30 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log locked
			defer logTo(&log)()
			inPod(t, func(c *Config, p *pod) {
				if !test.known {
					c.App = nil
				}
				if test.starts > 0 {
					p.app.set(false)
				}
				p.counter.mode = failing
			}, func(t *testing.T, p *pod) {
				began := time.Now()
				warned := time.Duration(0)
				healed := false
				for time.Since(began) < 3*time.Minute {
					after(time.Second)
					if !healed && time.Since(began) >= test.starts && test.starts < time.Hour {
						p.app.set(true)
					}
					if !healed && time.Since(began) >= test.heals {
						healed = true
						p.counter.mu.Lock()
						p.counter.mode = healthy
						p.counter.mu.Unlock()
					}
					p.Status(t.Context()) // somebody looks all the time
					if warned == 0 && strings.Contains(log.String(), "counter: cannot be read") {
						warned = time.Since(began)
					}
				}
				if warned < test.warns || warned > test.warns+2*time.Second || test.warns == 0 && warned != 0 {
					t.Errorf("warned after %v, want %v\n%s", warned, test.warns, log.String())
				}
				if n := strings.Count(log.String(), "counter: cannot be read"); n > 1 {
					t.Errorf("warned %d times", n)
				}
				p.counter.mu.Lock()
				p.counter.mode = healthy
				p.counter.mu.Unlock()
				p.Status(t.Context())
				if again := strings.Contains(log.String(), "counter: can be read again"); again != (warned != 0) {
					t.Errorf("the log:\n%s", log.String())
				}
			})
		})
	}
}
