package drain

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowToNotice takes a moment to see that its context has ended.
type slowToNotice struct{ fakeRegistry }

func (*slowToNotice) Withdrawn(ctx context.Context) (bool, error) {
	<-ctx.Done()
	after(20 * ms)
	return false, ctx.Err()
}

func TestACallOfTheDrainBeforeDoesNotCount(t *testing.T) {
	s := &slowToNotice{fakeRegistry{registered: true}}
	inPod(t, func(c *Config, _ *pod) {
		s.changed = time.Now().Add(-time.Hour)
		c.Registries = []NamedRegistry{{Name: "registry", Registry: s}}
	}, func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(500 * ms)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.TakeBack(ended)
		p.Begin(CauseCall)
		after(200 * ms)
		if r := p.Status(t.Context()).Registries[0]; r.Failures != 0 {
			t.Errorf("the new drain counts a failure of the one before, which was called off: %+v", r)
		}
	})
}

// What begins while the process ends does not take the order to deregister away.
func TestWhatBeginsWhileTheProcessEnds(t *testing.T) {
	for name, begin := range map[string]func(*Drainer){
		"a call":                         func(d *Drainer) { d.Begin(CauseCall) },
		"a hook that is delivered again": func(d *Drainer) { go func() { _, _ = d.PreStop(context.Background()) }() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
				app := startedApp()
				d := New(Config{
					GracePeriod: 10 * time.Second, Reserve: 5 * time.Second, Poll: 100 * ms, App: app,
					Registries: []NamedRegistry{{Name: "r", Registry: r}},
				})
				ran := make(chan error, 1)
				go func() { ran <- d.Run(context.Background()) }()
				synctest.Wait()
				report, _ := d.PreStop(context.Background())
				after(time.Until(report.Began.Add(10*time.Second + 10*ms)))
				r.mu.Lock()
				r.mode = failing
				r.mu.Unlock()
				d.Stop() // when the grace period is over, as a native sidecar is told
				app.set(false)
				synctest.Wait()
				begin(d)
				after(100 * ms)
				r.mu.Lock()
				r.mode = healthy
				r.mu.Unlock()
				<-ran
				if _, n, _ := r.seen(); n == 0 {
					t.Error("the instance stays in its registry")
				}
			})
		})
	}
}

func TestOnlyWhatWasNotDeregisteredIsSaidToBeSo(t *testing.T) {
	for range 40 { // it was by chance
		var log locked
		restore := logTo(&log)
		synctest.Test(t, func(*testing.T) {
			hangs := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
			good := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
			app := startedApp()
			d := New(Config{
				GracePeriod: 30 * time.Second, Poll: 100 * ms, App: app,
				Registries: []NamedRegistry{{Name: "hangs", Registry: hangs}, {Name: "good", Registry: good}},
			})
			ran := make(chan error, 1)
			go func() { ran <- d.Run(context.Background()) }()
			synctest.Wait()
			d.Stop()
			after(2 * time.Second)
			hangs.mu.Lock()
			hangs.mode = hanging
			hangs.mu.Unlock()
			app.set(false)
			<-ran
		})
		restore()
		said := func(name string) bool {
			return slices.ContainsFunc(strings.Split(log.String(), "\n"), func(line string) bool {
				return strings.Contains(line, "not deregistered in time") && strings.Contains(line, "registry="+name)
			})
		}
		if said("good") || !said("hangs") {
			t.Fatalf("the log says of good %v, of hangs %v", said("good"), said("hangs"))
		}
	}
}

func TestANegativeThresholdIsNone(t *testing.T) {
	inPod(t, func(c *Config, _ *pod) { c.Threshold = -1 }, func(t *testing.T, p *pod) {
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Errorf("%s: %s", report.Outcome, report.WaitingFor)
		}
	})
}

// The texts of an end say what has ended the drain.
func TestWhatCutADrainShort(t *testing.T) {
	for name, test := range map[string]struct {
		cut  func(p *pod, endServer func())
		want string
	}{
		"SIGINT":                 {func(p *pod, _ func()) { p.Interrupt() }, "(ended by SIGINT)"},
		"the server's end":       {func(_ *pod, endServer func()) { endServer() }, "(the sidecar could no longer serve)"},
		"SIGINT after a SIGTERM": {func(p *pod, _ func()) { p.Stop(); p.Stop(); p.Interrupt() }, "(ended by SIGINT)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				notes := &notebook{}
				counter := &fakeCounter{inFlight: 1}
				p := &pod{t: t, Drainer: New(Config{
					GracePeriod: 30 * time.Second, Reserve: 5 * time.Second, Poll: 100 * ms,
					Counters: []NamedCounter{{Name: "counter", Counter: counter}}, Observers: []Observer{notes},
				})}
				ctx, end := context.WithCancel(context.Background())
				defer end()
				ran := make(chan error, 1)
				go func() { ran <- p.Run(ctx) }()
				p.Begin(CauseCall)
				after(time.Second)
				test.cut(p, end)
				<-ran
				if got := notes.read(); !strings.Contains(got, "DrainExpired: cut short after 1.0 s "+test.want+", waiting for 1 request") {
					t.Errorf("told\n%s", got)
				}
			})
		})
	}
}
