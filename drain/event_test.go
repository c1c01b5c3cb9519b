package drain

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// notebook is an Observer that remembers.
type notebook struct {
	mu  sync.Mutex
	all []Event
}

func (n *notebook) Observe(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, e)
}

// read tells what has happened, a line each, and forgets it.
func (n *notebook) read() string {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	var lines []string
	for _, e := range n.all {
		lines = append(lines, fmt.Sprintf("%s: %s", e.Type, e.Text))
	}
	n.all = nil
	return strings.Join(lines, "\n")
}

func TestObserversAreToldInOrder(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		p.registry.lag = 2 * time.Second
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		if got := notes.read(); got != "" {
			t.Errorf("while serving: %s", got)
		}
		p.hook()
		const want = "Draining: the pod leaves (hook): no longer ready; it may take 25s to drain\n" +
			"Withdrawn: registry no longer lists the pod, 2.X s after the drain began; its clients forget it within 5s\n" +
			"Drained: drained after 8.X s: withdrawing 0.0 s, propagating 7.X s, draining 1.0 s"
		if got := tenths(notes.read()); got != want {
			t.Errorf("told\n%s\nwant\n%s", got, want)
		}
	})
}

// tenths hides the tenths of a second of waits that end by a poll.
func tenths(text string) string {
	for _, s := range []string{"2.", "8.", "7."} {
		for i := range 10 {
			text = strings.ReplaceAll(text, fmt.Sprintf(" %s%d s", s, i), " "+s+"X s")
		}
	}
	return text
}

func TestObserversAreToldOfABadEnd(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*pod)
		end    func(*pod)
		want   []string
		not    string
	}{
		"expired": {
			func(p *pod) { p.counter.set(3) }, nil,
			[]string{"DrainExpired: the budget of 25s ended, waiting for 3 requests: counter 3: withdrawing 0.0 s"}, "Drained:",
		},
		"a registry that fails": {
			func(p *pod) { p.registry.mode = failing }, nil,
			[]string{"RegistryUnreachable: calls to registry fail, and are tried again until the budget ends: withdraw: broken on purpose", "DrainExpired: "}, "Withdrawn:",
		},
		"taken back": {
			nil, func(p *pod) { _ = p.TakeBack(context.Background()) },
			[]string{"DrainTakenBack: the drain was taken back after 1.0 s: taken back on request"}, "Expired",
		},
		"cut short": {
			nil, func(p *pod) { p.Stop(); p.Stop(); p.Interrupt() },
			[]string{"DrainExpired: cut short after 1.0 s (ended by SIGINT), waiting for registry's clients to refresh (4.0 s)"}, "Drained:",
		},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, func(c *Config, _ *pod) { c.Observers = []Observer{notes} }, func(t *testing.T, p *pod) {
				if test.before != nil {
					test.before(p)
				}
				var hook sync.WaitGroup
				hook.Go(func() { p.hook() })
				if test.end != nil {
					after(time.Second)
					test.end(p)
				}
				hook.Wait()
				got := notes.read()
				for _, want := range test.want {
					if strings.Count(got, want) != 1 {
						t.Errorf("told\n%s\nwant once\n%s", got, want)
					}
				}
				if strings.Contains(got, test.not) {
					t.Errorf("told\n%s\nwhich must not hold %s", got, test.not)
				}
			})
		})
	}
}

// The app was only restarted: that shows when the drain has ended.
func TestObserversAreToldOfADrainThatIsTakenBackAfterItsEnd(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, _ *pod) { c.Observers = []Observer{notes} }, func(t *testing.T, p *pod) {
		p.hook()
		if got := notes.read(); !strings.Contains(got, "Drained: ") || strings.Contains(got, string(EventTakenBack)) {
			t.Fatalf("told\n%s", got)
		}
		after(2 * time.Second)
		p.PostStart()
		const want = "DrainTakenBack: the drain was taken back after 8.X s: the app's postStart hook was called: it was only restarted"
		if got := tenths(notes.read()); got != want {
			t.Errorf("told\n%s\nwant\n%s", got, want)
		}
	})
}

func TestAFailureThatPassesIsNotTold(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		failures := 1
		p.registry.onCall = func(string) {
			p.registry.mu.Lock()
			defer p.registry.mu.Unlock()
			p.registry.mode = healthy
			if failures > 0 {
				failures--
				p.registry.mode = failing
			}
		}
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		report, _ := p.hook()
		if report.Registries[0].Failures != 1 {
			t.Fatalf("%d calls have failed, want 1", report.Registries[0].Failures)
		}
		if got := notes.read(); strings.Contains(got, string(EventUnreachable)) {
			t.Errorf("told\n%s", got)
		}
	})
}
