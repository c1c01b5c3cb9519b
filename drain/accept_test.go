package drain

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// proxyCounter is a counter whose proxy can be told.
type proxyCounter struct {
	fakeCounter
	stopped, started int
	fails            int
}

func (p *proxyCounter) StopAccepting(context.Context) error {
	if p.fails > 0 {
		p.fails--
		return errBroken
	}
	p.stopped++
	return nil
}

func (p *proxyCounter) StartAccepting(context.Context) error { p.started++; return nil }

func TestAProxyIsToldOfTheDrain(t *testing.T) {
	proxy := &proxyCounter{fails: 2}
	inPod(t, func(c *Config, _ *pod) {
		c.Counters = []NamedCounter{{Name: "proxy", Counter: proxy}}
	}, func(t *testing.T, p *pod) {
		p.hook()
		if proxy.stopped != 1 || proxy.started != 1 { // an earlier process may have stopped it

			t.Fatalf("told to stop %d times, to start %d times", proxy.stopped, proxy.started)
		}
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if proxy.started != 2 {
			t.Error("not told that the drain was taken back")
		}
	})
}

// halfStopper acts, and then fails: its health check is failed, and its
// listeners could not be told.
type halfStopper struct {
	fakeCounter
	mu      sync.Mutex
	stopped bool
	starts  int
}

func (h *halfStopper) StopAccepting(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	return errors.New("drain_listeners: 503")
}

func (h *halfStopper) StartAccepting(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = false
	h.starts++
	return nil
}

func (h *halfStopper) is() (stopped bool, starts int) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stopped, h.starts
}

func TestAProxyThatWasToldHalfWayIsToldToComeBack(t *testing.T) {
	proxy := &halfStopper{}
	inPod(t, func(c *Config, _ *pod) { c.Counters = []NamedCounter{{Name: "proxy", Counter: proxy}} }, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(10 * time.Second)
		if stopped, _ := proxy.is(); !stopped {
			t.Fatal("it was not told")
		}
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stopped, _ := proxy.is(); stopped {
			t.Error("the drain was taken back, and the proxy still sends its clients away")
		}
	})
}

// A sidecar that was killed in its drain has left its proxy told.
func TestWhatAnEarlierProcessLeftIsUndoneAtStart(t *testing.T) {
	proxy := &halfStopper{stopped: true}
	inPod(t, func(c *Config, _ *pod) { c.Counters = []NamedCounter{{Name: "proxy", Counter: proxy}} }, func(t *testing.T, _ *pod) {
		if stopped, starts := proxy.is(); stopped || starts != 1 {
			t.Errorf("stopped %v, told to start %d times", stopped, starts)
		}
		after(time.Hour)
		if _, starts := proxy.is(); starts != 1 {
			t.Errorf("told to start %d times", starts)
		}
	})
}
