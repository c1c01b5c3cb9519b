package drain

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pod is one Drainer with one of each part, in a bubble of fake time.
type pod struct {
	*Drainer
	t        *testing.T
	registry *fakeRegistry
	counter  *fakeCounter
	app      *fakeApp
	ran      chan error
}

// inPod runs f with a pod that serves, and then has the pod deleted.
func inPod(t *testing.T, change func(*Config, *pod), f func(t *testing.T, p *pod)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pod{
			t:        t,
			registry: &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)},
			counter:  &fakeCounter{arrives: true},
			app:      startedApp(),
			ran:      make(chan error, 1),
		}
		cfg := Config{
			GracePeriod:   30 * time.Second,
			Reserve:       5 * time.Second,
			EndpointsWait: 3 * time.Second,
			Quiet:         time.Second,
			Poll:          100 * time.Millisecond,
			Registries:    []NamedRegistry{{Name: "registry", Registry: p.registry, ClientRefresh: 5 * time.Second}},
			Counters:      []NamedCounter{{Name: "counter", Counter: p.counter}},
			App:           p.app,
		}
		if change != nil {
			change(&cfg, p)
		}
		p.Drainer = New(cfg)
		go func() { p.ran <- p.Run(context.Background()) }()
		defer func() {
			p.Stop()
			p.Interrupt()
			<-p.ran
		}()
		synctest.Wait()
		f(t, p)
	})
}

// hook calls PreStop as a kubelet does, and returns its report and how long it took.
func (p *pod) hook() (Report, time.Duration) {
	p.t.Helper()
	began := time.Now()
	report, err := p.PreStop(context.Background())
	if err != nil {
		p.t.Errorf("PreStop: %v", err)
	}
	return report, time.Since(began)
}

func (p *pod) withdrawals() int { n, _, _ := p.registry.seen(); return n }

func (p *pod) deregistered() int { _, n, _ := p.registry.seen(); return n }

func (p *pod) withdrawn() bool { _, _, is := p.registry.seen(); return is }

func (p *pod) phase() Phase {
	synctest.Wait()
	return p.Status(context.Background()).Phase
}

// ended waits for Run's end, and returns how long after the drain's beginning
// that was.
func (p *pod) ended(began time.Time) (time.Duration, error) {
	err := <-p.ran
	p.ran <- err
	return time.Since(began), err
}

// longest is what a wait may last beyond what it should, for polls.
const longest = 200 * time.Millisecond

func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+longest {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}

const ms = time.Millisecond

// on makes the pod's app listen on these ports, and remembers what observers
// are told.
func on(notes *notebook, ports ...int) func(*Config, *pod) {
	return func(c *Config, p *pod) {
		p.app = startedApp(ports...)
		c.App = p.app
		c.Observers = []Observer{notes}
	}
}

// call calls the hook in the background, as a kubelet does that leaves the
// request open, and returns what ends the connection and where the answer comes.
func (p *pod) call() (breakOff func(), answers chan Report) {
	ctx, cancel := context.WithCancel(context.Background())
	answers = make(chan Report, 1)
	p.t.Cleanup(cancel)
	go func() {
		if report, err := p.PreStop(ctx); err == nil {
			answers <- report
		}
	}()
	synctest.Wait()
	return cancel, answers
}

// serves holds that the pod is in service again, and why.
func (p *pod) serves(notes *notebook, why string) {
	p.t.Helper()
	synctest.Wait()
	if !p.Ready() || p.phase() != Serving || p.withdrawn() {
		p.t.Fatalf("ready %v, phase %s, withdrawn %v, want the pod back in service", p.Ready(), p.phase(), p.withdrawn())
	}
	if got := notes.read(); !strings.Contains(got, "DrainTakenBack: ") || !strings.Contains(got, why) {
		p.t.Errorf("told\n%s\nwant DrainTakenBack with %q", got, why)
	}
}

func (p *pod) staysOut(why string) {
	p.t.Helper()
	synctest.Wait()
	if p.Ready() {
		p.t.Fatalf("ready, although %s", why)
	}
}
