package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

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

func (w wordy) Withdraw(context.Context) error { return w.err() }

func (w wordy) Withdrawn(context.Context) (bool, error) { return false, w.err() }

func (w wordy) Restore(context.Context) error { return w.err() }

func (w wordy) Deregister(context.Context) error { return w.err() }

func (w wordy) Count(context.Context) (Reading, error) { return Reading{}, w.err() }

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
