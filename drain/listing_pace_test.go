package drain

import (
	"testing"
	"time"
)

// A registry that reports changes is asked at once.
func TestListingIsReported(t *testing.T) {
	var changes chan struct{}
	inPod(t, whenListed(&notebook{}, func(c *Config, p *pod) {
		changes = make(chan struct{}, 1)
		c.Registries[0].Registry = listingNotifier{fakeLister{fakeLocator{p.registry}}, changes}
	}), func(_ *testing.T, p *pod) {
		after(100 * time.Second)
		p.registers()
		notify(changes)
		after(listingChangeGap)
		p.isReady()
	})
}

func TestListingThatChangesAllTheTime(t *testing.T) {
	var changes chan struct{}
	inPod(t, whenListed(&notebook{}, func(c *Config, p *pod) {
		changes = make(chan struct{}, 1)
		c.Registries[0].Registry = listingNotifier{fakeLister{fakeLocator{p.registry}}, changes}
	}), func(t *testing.T, p *pod) {
		for range 1000 {
			notify(changes)
			after(10 * ms)
		}
		if n := p.asks(); n > 45 {
			t.Errorf("asked %d times in 10 s", n)
		}
	})
}

type listingNotifier struct {
	fakeLister
	changes chan struct{}
}

func (n listingNotifier) Changes() <-chan struct{} { return n.changes }

// Pods that start together do not ask in step.
func TestListingPauses(t *testing.T) {
	now := time.Now()
	seen := map[time.Duration]bool{}
	for range 100 {
		l := listing{from: now.Add(-20 * time.Second)}
		p := l.pause(now)
		if p > 2500*ms || p < 2*time.Second {
			t.Fatalf("a pause of %v after 20 s", p)
		}
		seen[p] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d different pauses", len(seen))
	}
}
