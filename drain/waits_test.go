package drain

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// waited are the waits of a report, by what was waited for, in seconds.
func waited(t *testing.T, r Report) map[string]float64 {
	t.Helper()
	of := map[string]float64{}
	for _, w := range r.Waits {
		if _, twice := of[w.For]; twice {
			t.Errorf("two waits for %q", w.For)
		}
		of[w.For] = w.Seconds
	}
	return of
}

func TestTheReportTellsEachWait(t *testing.T) {
	inPod(t, func(c *Config, p *pod) {
		p.registry.lag = 4 * time.Second
		c.Counters = append(c.Counters, NamedCounter{Name: "other", Counter: &fakeCounter{inFlight: 2}})
	}, func(t *testing.T, p *pod) {
		p.counter.set(1)
		var hook sync.WaitGroup
		var report Report
		hook.Go(func() { report, _ = p.hook() })
		after(12 * time.Second)
		p.counter.set(0)
		s := p.Status(context.Background())
		if want := "waiting for 3 requests: counter 1, other 2; 13.0 s of budget left"; s.WaitingFor != want {
			t.Errorf("the status says %q, want %q", s.WaitingFor, want)
		}
		if len(s.Waits) == 0 {
			t.Error("the status tells no waits")
		}
		after(3 * time.Second)
		p.cfg.Counters[1].Counter.(*fakeCounter).set(0)
		hook.Wait()

		got := waited(t, report)
		for what, want := range map[string]float64{
			"registry to drop the pod from its answers": 4,
			"registry's clients to refresh":             5,
			"endpoints":                                 3,
			"requests in flight: counter":               3,
			"requests in flight: other":                 6,
			"quiet":                                     1,
		} {
			if got[what] < want-1 || got[what] > want+1 {
				t.Errorf("waited %.1f s for %s, want about %.0f", got[what], what, want)
			}
			delete(got, what)
		}
		if len(got) > 0 {
			t.Errorf("and for %v", got)
		}
	})
}

// The text is of the moment at which it is asked for.
func TestAWaitCountsDown(t *testing.T) {
	inPod(t, nil, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		for i := range 3 {
			after(700 * time.Millisecond)
			left := 5 - 0.7*float64(i+1)
			want := fmt.Sprintf("waiting for registry's clients to refresh (%.1f s), endpoints (%.1f s); %.1f s of budget left", left, left-2, left+20)
			if got := p.Status(context.Background()).WaitingFor; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// looks counts readings.
type looks struct {
	mu sync.Mutex
	n  int
}

func (l *looks) add(Reading, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
}

func (l *looks) since(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n - n
}

// A counter that tells no changes is read at each poll at first, more seldom
// when nothing has changed for long, and at each poll again when it has.
func TestALongWaitLooksMoreSeldom(t *testing.T) {
	var readings looks
	inPod(t, func(c *Config, p *pod) {
		c.GracePeriod, c.Quiet = time.Hour, 3*time.Second
		p.counter.onRead = readings.add
	}, func(t *testing.T, p *pod) {
		p.counter.set(2)
		p.Begin(CauseCall)
		after(6 * time.Second)
		count := func(d time.Duration) int {
			before := readings.since(0)
			after(d)
			return readings.since(before)
		}
		if n := count(time.Second); n < 9 {
			t.Errorf("read %d times in a second at first", n)
		}
		after(30 * time.Minute)
		if n := count(10 * time.Second); n < 9 || n > 11 {
			t.Errorf("read %d times in 10 seconds after half an hour", n)
		}
		p.counter.set(1)
		after(time.Second)
		if n := count(time.Second); n < 9 {
			t.Errorf("read %d times in a second after a change", n)
		}
	})
}
