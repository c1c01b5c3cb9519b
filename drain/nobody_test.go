package drain

import (
	"sync/atomic"
	"testing"
	"time"
)

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
			func(_ *Config, f *fakeCounter) { f.changes = nil }, func(w world) {
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
				counter.changes = make(chan struct{}, 1)
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
		counter.changes = make(chan struct{}, 1)
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
