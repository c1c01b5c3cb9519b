package drain

import (
	"context"
	"testing"
	"time"
)

// Each row is a way in which a kubelet restarts a container. All of them end
// with the pod in service.
func TestEveryRestartIsSeen(t *testing.T) {
	const listens, over = "the app was only restarted: it listens again on port ", "the pod is not being deleted"
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
			}, 100 * ms, listens + "8080",
		},
		"the same with no look in the gap": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				after(24 * time.Second)
				p.app.start(8080)
			}, 100 * ms, listens + "8080",
		},
		"the same after minutes in back-off": {
			[]int{8080}, nil, func(p *pod) {
				p.hook()
				p.app.set(false)
				after(7 * time.Minute)
				p.app.set(true)
			}, 100 * ms, listens + "8080",
		},
		"one of two containers": {
			[]int{8080, 8081}, nil, func(p *pod) {
				p.hook()
				after(2 * time.Second)
				p.app.close(8081)
				after(3 * time.Second)
				p.app.start(8081)
			}, 100 * ms, listens + "8081",
		},
		"the first of two containers, with no gap": {
			[]int{8080, 8081}, nil, func(p *pod) {
				p.hook()
				after(2 * time.Second)
				p.app.start(8080)
			}, 100 * ms, listens + "8080",
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
			}, 100 * ms, listens + "8081",
		},
		"the hook is given up and its request left open": {
			[]int{8080}, nil, func(p *pod) {
				p.counter.set(1)
				p.call()
				after(5 * time.Second)
				p.app.set(false)
				after(300 * ms)
				p.app.set(true)
			}, 100 * ms, listens + "8080",
		},
		"counters are polled every second": {
			[]int{8080}, func(c *Config) { c.Poll = time.Second }, func(p *pod) {
				p.hook()
				after(2 * time.Second)
				p.app.set(false)
				after(100 * ms)
				p.app.set(true)
			}, 100 * ms, listens + "8080",
		},
		"the drain has expired": {
			[]int{8080}, nil, func(p *pod) {
				p.counter.set(1)
				p.hook()
				p.app.start(8080)
			}, 100 * ms, listens + "8080",
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
			}, 100 * ms, listens + "8080",
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
		p.serves(notes, "it listens again")
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
