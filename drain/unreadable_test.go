package drain

import (
	"context"
	"strings"
	"testing"
	"time"
)

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
