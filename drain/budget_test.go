package drain

import (
	"context"
	"strings"
	"testing"
	"time"
)

func (p *pod) status() Status { return p.Status(context.Background()) }

func TestBudgetOfItsOwn(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.counter.set(1)
		p.BeginWithin(10 * time.Minute)
		after(9 * time.Minute)
		if s := p.status(); s.Phase != Draining || *s.BudgetLeft != 60 {
			t.Fatalf("%s, %v s left", s.Phase, *s.BudgetLeft)
		}
		after(time.Minute + time.Millisecond)
		if s := p.status(); s.Phase != Expired || !strings.Contains(s.WaitingFor, "1 request") {
			t.Fatalf("%s, %s", s.Phase, s.WaitingFor)
		}
	})
}

func TestACallLengthensTheBudgetAndNeverShortensIt(t *testing.T) {
	for name, c := range map[string]struct {
		then []time.Duration // budgets of calls a second apart
		ends time.Duration   // after the beginning; 0: never
	}{
		"longer":              {[]time.Duration{time.Minute, 2 * time.Minute}, 121 * time.Second},
		"shorter":             {[]time.Duration{2 * time.Minute, time.Minute, time.Second}, 2 * time.Minute},
		"none":                {[]time.Duration{time.Minute, Unbounded}, 0},
		"shorter than none":   {[]time.Duration{Unbounded, time.Minute}, 0},
		"less than a default": {[]time.Duration{time.Second}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inPod(t, nil, func(t *testing.T, p *pod) {
				p.counter.set(1)
				began := time.Now()
				for i, budget := range c.then {
					if i > 0 {
						after(time.Second)
					}
					p.BeginWithin(budget)
				}
				if c.ends == 0 {
					after(24 * time.Hour)
					if s := p.status(); s.Phase != Draining || s.Deadline != nil || s.BudgetLeft != nil {
						t.Fatalf("%s, deadline %v", s.Phase, s.Deadline)
					}
					p.counter.set(0)
					after(3 * time.Second) // it is read every second by now
					if got := p.phase(); got != Drained {
						t.Fatalf("%s", got)
					}
					return
				}
				after(time.Until(began.Add(c.ends - time.Millisecond)))
				if got := p.phase(); got == Expired {
					t.Fatalf("it has expired too early")
				}
				after(2 * time.Millisecond)
				if got := p.phase(); got != Expired {
					t.Fatalf("%s after %v", got, c.ends)
				}
			})
		})
	}
}

// Whatever a call has asked for, the kubelet kills the app when its grace period
// is over: from its first word on, the drain has the configured budget.
func TestTheGracePeriodLimitsEveryBudget(t *testing.T) {
	for name, c := range map[string]struct{ budget, hook time.Duration }{
		"none, long ago":        {Unbounded, time.Hour},
		"longer":                {time.Hour, time.Minute},
		"about to end":          {25 * time.Second, 24 * time.Second},
		"has ended, as expired": {25 * time.Second, 26 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inPod(t, nil, func(t *testing.T, p *pod) {
				p.counter.set(1)
				p.BeginWithin(c.budget)
				after(c.hook)
				go func() {
					after(10 * time.Second)
					p.BeginWithin(time.Hour) // too late: the kubelet's clock runs
				}()
				called := time.Now()
				report, took := p.hook()
				if report.Outcome != OutcomeExpired || took != 25*time.Second {
					t.Fatalf("%s after %v", report.Outcome, took)
				}
				p.Stop()
				p.app.set(false)
				if took, _ := p.ended(called); took > 30*time.Second {
					t.Errorf("the process ended %v after the hook's call", took)
				}
			})
		})
	}
}

func TestASignalLimitsEveryBudget(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.counter.set(1)
		p.BeginWithin(Unbounded)
		after(time.Hour)
		began := time.Now()
		p.Stop()
		if took, err := p.ended(began); took > 30*time.Second || err == nil {
			t.Errorf("the process ended after %v: %v", took, err)
		}
	})
}

// A pod that somebody has drained stays out of its registries for as long as
// that is wanted, also if its app registers again long after the budget.
func TestADrainedPodStaysOut(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(time.Hour)
		p.registry.set(func() { p.registry.override = false })
		after(2 * watchEvery)
		if !p.withdrawn() {
			t.Error("the app has registered again, and nobody withdraws it")
		}
	})
}
