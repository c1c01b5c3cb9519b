package drain

import (
	"context"
	"net/netip"
	"strings"
	"testing"
)

// Whatever a plug-in's method does, a panic in it does not end the process.
type allPanics struct{ fakeCounter }

func (*allPanics) Changed(context.Context) <-chan struct{} { panic("broken on purpose") }

func (*allPanics) Learn(context.Context) { panic("broken on purpose") }

func (*allPanics) Learned() Learned { panic("broken on purpose") }

func (*allPanics) IgnoreProbes([]netip.Addr) { panic("broken on purpose") }

func (*allPanics) StopAccepting(context.Context) error { panic("broken on purpose") }

func (*allPanics) StartAccepting(context.Context) error { panic("broken on purpose") }

type panickyObserver struct{}

func (panickyObserver) Observe(Event) { panic("broken on purpose") }

type panickyApp struct{ *fakeApp }

func (panickyApp) Listeners(context.Context) (map[int][]uint64, error) { panic("broken on purpose") }

func (panickyApp) OtherPorts(context.Context) ([]int, error) { panic("broken on purpose") }

func TestAPanicInAPlugInDoesNotEndTheProcess(t *testing.T) {
	c, notes := &allPanics{}, &notebook{}
	inPod(t, func(cfg *Config, p *pod) {
		cfg.Counters = []NamedCounter{{Name: "x", Counter: c}}
		cfg.Observers = []Observer{panickyObserver{}, notes}
		cfg.App = panickyApp{p.app}
	}, func(t *testing.T, p *pod) {
		p.HookedFrom(netip.MustParseAddr("192.0.2.1"))
		report, _ := p.hook()
		if report.Outcome != OutcomeDrained {
			t.Errorf("%s: %s", report.Outcome, report.WaitingFor)
		}
		if got := report.Counters[0].Learned; got == nil || !strings.Contains(got.Text, "x counter panicked, please report it") {
			t.Errorf("learned %+v", got)
		}
		if got := notes.read(); !strings.Contains(got, "Drained: ") {
			t.Errorf("the other observer was told\n%s", got)
		}
	})
}

type changedPanics struct{ fakeCounter }

func (*changedPanics) Changed(context.Context) <-chan struct{} { panic("broken on purpose") }

func TestACounterWhoseNoticesPanicIsPolled(t *testing.T) {
	c := &changedPanics{}
	inPod(t, func(cfg *Config, _ *pod) { cfg.Counters = []NamedCounter{{Name: "x", Counter: c}} }, func(t *testing.T, p *pod) {
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Errorf("%s: %s", report.Outcome, report.WaitingFor)
		}
	})
}
