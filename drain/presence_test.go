package drain

import (
	"context"
	"strings"
	"testing"
	"time"
)

// unregistered makes the pod's registry one that has never held the instance.
func unregistered(notes *notebook) func(*Config, *pod) {
	return func(c *Config, p *pod) {
		p.registry.registered = false
		c.Registries[0].Registry = fakeLocator{p.registry}
		c.Observers = []Observer{notes}
	}
}

func timelineOf(entries []TimelineEntry) string {
	var lines []string
	for _, e := range entries {
		lines = append(lines, e.Text)
	}
	return strings.Join(lines, "\n")
}

func TestAnInstanceThatIsNeverFound(t *testing.T) {
	var log locked
	defer logTo(&log)()
	notes := &notebook{}
	inPod(t, unregistered(notes), func(t *testing.T, p *pod) {
		after(100 * ms) // the first search has failed
		s := p.Status(t.Context())
		if r := s.Registries[0]; r.State != "not found" || r.Error != errAbsent.Error() || len(s.Warnings) != 1 {
			t.Errorf("while serving: %+v, %q", r, s.Warnings)
		}
		if found, said := p.Totals(t.Context()).Found["registry"]; found || !said {
			t.Errorf("totals say found %v, %v", found, said)
		}
		if !strings.Contains(log.String(), "the pod's instance was not found") {
			t.Errorf("the log says\n%s", log.String())
		}
		after(50 * time.Second)
		if got := notes.read(); got != "" {
			t.Errorf("while the app may be registering: told\n%s", got)
		}
		after(10 * time.Minute)
		if got, want := notes.read(), "InstanceNotFound: registry: the pod's instance is not found; a drain could not withdraw it: "+errAbsent.Error(); got != want {
			t.Errorf("while serving: told\n%s\nwant\n%s", got, want)
		}

		report, took := p.hook()
		about(t, "the hook", took, 6*time.Second) // refresh from the beginning, and quiet
		if report.Outcome != OutcomeNotFound || !strings.Contains(report.Reason, "never found in registry") {
			t.Errorf("outcome %s: %s", report.Outcome, report.Reason)
		}
		if r := report.Registries[0]; r.State != "not found" || r.Gone != nil || r.Withdrawn != nil || r.Error != errAbsent.Error() {
			t.Errorf("the report says %+v", r)
		}
		got := timelineOf(report.Timeline)
		if !strings.Contains(got, "registry: the pod's instance was never found") || strings.Contains(got, "withdrawn\n") || strings.Contains(got, "no longer lists") {
			t.Errorf("the timeline says\n%s", got)
		}
		told := notes.read()
		if strings.Count(told, "InstanceNotFound: ") != 2 || strings.Contains(told, "Drained: ") || strings.Contains(told, "Withdrawn: ") {
			t.Errorf("told\n%s", told)
		}
		if !EventNotFound.Warning() {
			t.Error("it is no warning")
		}
		if phase := p.phase(); phase != Drained {
			t.Errorf("phase %s", phase)
		}
		p.Stop()
		p.app.set(false)
		if _, err := p.ended(report.Began); err != nil {
			t.Errorf("Run returns %v, and no work was left", err)
		}
		if s := p.Status(t.Context()).Registries[0].State; s != "not found" {
			t.Errorf("at the end its state is %q", s)
		}
	})
}

func TestAnInstanceThatAppears(t *testing.T) {
	for name, test := range map[string]struct {
		at, want time.Duration // after the hook
	}{
		"in the middle of a drain":       {2 * time.Second, 2*time.Second + 5*time.Second + time.Second},
		"while the pod waits for work":   {5500 * ms, 5500*ms + 5*time.Second + time.Second},
		"right when the drain has begun": {10 * ms, 7500 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, unregistered(notes), func(t *testing.T, p *pod) {
				after(time.Second)
				time.AfterFunc(test.at, func() { p.registry.set(func() { p.registry.registered = true }) })
				p.counter.set(1)
				time.AfterFunc(6500*ms, func() { p.counter.set(0) })
				report, took := p.hook()
				if report.Outcome != OutcomeDrained || p.withdrawals() != 1 {
					t.Errorf("outcome %s after %d withdrawals", report.Outcome, p.withdrawals())
				}
				if took < test.want || took > test.want+watchEvery+longest {
					t.Errorf("the hook took %v, want %v", took, test.want)
				}
				if r := report.Registries[0]; r.State != "forgotten" || r.Gone == nil || r.Withdrawn == nil || r.Error != "" {
					t.Errorf("the report says %+v", r)
				}
				if got := timelineOf(report.Timeline); !strings.Contains(got, "has appeared") || !strings.Contains(got, "registry: withdrawn") {
					t.Errorf("the timeline says\n%s", got)
				}
				if told := notes.read(); strings.Count(told, "InstanceNotFound: ") != 1 || !strings.Contains(told, "Drained: ") {
					t.Errorf("told\n%s", told)
				}
			})
		})
	}
}

func TestAnInstanceThatRegistersLateInService(t *testing.T) {
	notes := &notebook{}
	inPod(t, unregistered(notes), func(t *testing.T, p *pod) {
		after(30 * time.Second)
		p.registry.set(func() { p.registry.registered = true })
		after(10 * time.Minute)
		s := p.Status(t.Context())
		if r := s.Registries[0]; r.State != "in service" || r.Error != "" || len(s.Warnings) > 0 || !p.Totals(t.Context()).Found["registry"] {
			t.Errorf("it was found, and is %+v, %q", r, s.Warnings)
		}
		if got := notes.read(); got != "" {
			t.Errorf("told\n%s", got)
		}
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Errorf("outcome %s", report.Outcome)
		}
	})
}

// What cannot be searched is not "not found": the drain waits for it.
func TestARegistryThatCannotBeSearched(t *testing.T) {
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		unregistered(notes)(c, p)
		p.registry.mode = failing
	}, func(t *testing.T, p *pod) {
		after(10 * time.Minute)
		s := p.Status(t.Context())
		if _, said := p.Totals(t.Context()).Found["registry"]; said || s.Registries[0].State != "in service" || len(s.Warnings) > 0 {
			t.Errorf("while serving: %+v, %q, found said %v", s.Registries[0], s.Warnings, said)
		}
		report, _ := p.hook()
		if report.Outcome != OutcomeExpired || report.Registries[0].State != "withdrawing" {
			t.Errorf("outcome %s: %+v", report.Outcome, report.Registries[0])
		}
		if told := notes.read(); strings.Contains(told, "InstanceNotFound") {
			t.Errorf("told\n%s", told)
		}
	})
}

// One registry that has found the instance does not speak for another.
func TestOneOfTwoRegistriesFindsTheInstance(t *testing.T) {
	other := &fakeRegistry{registered: true, changed: time.Now().Add(-time.Hour)}
	inPod(t, func(c *Config, p *pod) {
		unregistered(&notebook{})(c, p)
		c.Registries = append(c.Registries, NamedRegistry{Name: "other", Registry: fakeLocator{other}})
	}, func(t *testing.T, p *pod) {
		report, _ := p.hook()
		if report.Outcome != OutcomeNotFound || report.Registries[0].State != "not found" || report.Registries[1].State != "forgotten" {
			t.Errorf("outcome %s: %+v", report.Outcome, report.Registries)
		}
	})
}

// A drain that is taken back leaves nothing that says it was put back.
func TestAnInstanceThatIsNeverFoundIsTakenBack(t *testing.T) {
	inPod(t, unregistered(&notebook{}), func(t *testing.T, p *pod) {
		p.Begin(CauseCall)
		after(time.Second)
		if got := p.Status(t.Context()).WaitingFor; !strings.Contains(got, "the pod's instance to appear in registry (4.0 s)") {
			t.Errorf("it waits for %q", got)
		}
		if err := p.TakeBack(context.Background()); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if got := p.Status(t.Context()).Registries[0].State; got != "not found" {
			t.Errorf("its state is %q", got)
		}
		p.registry.set(func() { p.registry.registered = true })
		after(time.Minute)
		if report, _ := p.hook(); report.Outcome != OutcomeDrained {
			t.Errorf("outcome %s", report.Outcome)
		}
	})
}

func TestAWithdrawalThatWasGivenUp(t *testing.T) {
	const why = "the cluster has no other member"
	notes := &notebook{}
	inPod(t, func(c *Config, p *pod) {
		p.registry.hopeless = why
		c.Registries[0].Registry = fakeLocator{p.registry}
		c.Observers = []Observer{notes}
	}, func(t *testing.T, p *pod) {
		report, took := p.hook()
		about(t, "the hook", took, 6*time.Second)
		r := report.Registries[0]
		if report.Outcome != OutcomeDrained || r.State != "given up" || r.GaveUp != why || r.Gone != nil || r.Withdrawn != nil {
			t.Errorf("outcome %s: %+v", report.Outcome, r)
		}
		got := timelineOf(report.Timeline)
		if !strings.Contains(got, "does not wait for it: "+why) || strings.Contains(got, "no longer lists") || strings.Contains(got, "registry: withdrawn") {
			t.Errorf("the timeline says\n%s", got)
		}
		told := notes.read()
		if strings.Count(told, "WithdrawalGivenUp: registry: the pod cannot be withdrawn, and the drain does not wait for it: "+why) != 1 || strings.Contains(told, "Withdrawn: ") {
			t.Errorf("told\n%s", told)
		}
		if !EventGivenUp.Warning() {
			t.Error("it is no warning")
		}
		if err := p.TakeBack(context.Background()); err != nil {
			t.Fatal(err)
		}
		p.registry.mu.Lock()
		p.registry.hopeless = "" // another member has come
		p.registry.mu.Unlock()
		report, _ = p.hook()
		if r := report.Registries[0]; r.GaveUp != "" || r.State != "forgotten" {
			t.Errorf("the next drain says %+v", r)
		}
	})
}

// A call that panics does not say that the instance was found.
func TestAPanicSaysNothingOfTheInstance(t *testing.T) {
	inPod(t, func(c *Config, p *pod) {
		unregistered(&notebook{})(c, p)
		p.registry.mode = panics
	}, func(t *testing.T, p *pod) {
		after(5 * time.Second)
		p.registry.mu.Lock()
		p.registry.mode = healthy
		p.registry.mu.Unlock()
		if report, _ := p.hook(); report.Outcome != OutcomeNotFound {
			t.Errorf("outcome %s", report.Outcome)
		}
	})
}
