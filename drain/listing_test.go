package drain

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// whenListed has readiness wait for a registry that does not hold the pod yet.
func whenListed(notes *notebook, change func(*Config, *pod)) func(*Config, *pod) {
	return func(c *Config, p *pod) {
		p.registry.registered = false
		c.Registries[0].Registry = fakeLister{fakeLocator{p.registry}}
		c.ReadyWhenListed, c.ListedWithin = true, 3*time.Minute
		c.Observers = []Observer{notes}
		if change != nil {
			change(c, p)
		}
	}
}

func (p *pod) registers() { p.registry.set(func() { p.registry.registered = true }) }

// waits holds that the pod is not ready, and that it says why.
func (p *pod) waits(says ...string) {
	p.t.Helper()
	synctest.Wait()
	ready, why := p.Readiness()
	if ready || p.Ready() {
		p.t.Fatalf("ready, want it to wait: %q", says)
	}
	for _, s := range says {
		if !strings.Contains(why, s) {
			p.t.Errorf("readiness says %q, want %q", why, s)
		}
	}
}

func (p *pod) isReady() {
	p.t.Helper()
	synctest.Wait()
	if ready, why := p.Readiness(); !ready || why != "" {
		p.t.Fatalf("not ready: %q", why)
	}
}

func (p *pod) asks() int {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return p.registry.asks
}

func TestReadyWhenListed(t *testing.T) {
	notes := &notebook{}
	inPod(t, whenListed(notes, func(_ *Config, p *pod) { p.registry.lag = 30 * time.Second }), func(t *testing.T, p *pod) {
		p.waits("waiting for registry to list the pod", "it is not up yet", "for 3m0s more at most")
		after(20 * time.Second)
		p.registers()
		after(29 * time.Second) // its answers lag
		p.waits("registry", "for 2m11s more at most")
		s := p.Status(t.Context())
		if s.Ready || s.Phase != Serving || !strings.Contains(s.WaitingFor, "waiting for registry to list the pod") || s.Registries[0].Listed == nil || *s.Registries[0].Listed {
			t.Errorf("while it waits: %+v", s)
		}
		if listed, said := p.Totals(t.Context()).Listed["registry"]; listed || !said {
			t.Errorf("totals say listed %v, %v", listed, said)
		}
		after(time.Second + 30*time.Second/listingPauseDivisor + 20*time.Second/listingPauseDivisor)
		p.isReady()
		s = p.Status(t.Context())
		if !s.Ready || s.WaitingFor != "" || !*s.Registries[0].Listed || len(s.Warnings) > 0 || !p.Totals(t.Context()).Listed["registry"] {
			t.Errorf("when it is listed: %+v", s)
		}
		if got := notes.read(); got != "" {
			t.Errorf("told\n%s", got)
		}
		if n := p.asks(); n > 45 {
			t.Errorf("asked %d times in 50 s", n)
		}

		// What was seen holds, whatever the registry says later.
		asks := p.asks()
		p.registry.set(func() { p.registry.registered = false })
		after(10 * time.Minute)
		p.isReady()
		p.registry.set(func() { p.registry.mode = failing })
		p.app.set(false) // restarted in place
		after(time.Minute)
		p.isReady()
		p.app.set(true)
		after(time.Minute)
		p.isReady()
		if n := p.asks() - asks; n > 0 {
			t.Errorf("asked %d times more", n)
		}
		p.Begin(CauseCall)
		p.waits("draining")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.TakeBack(ctx); err != nil {
			t.Error(err)
		}
		p.isReady()
		after(time.Hour)
		if got := notes.read(); strings.Contains(got, "NotListed") {
			t.Errorf("told\n%s", got)
		}
	})
}

// A sidecar that is started again beside an app that serves is ready at once.
func TestReadyWhenListedAfterTheSidecarsRestart(t *testing.T) {
	inPod(t, whenListed(&notebook{}, func(_ *Config, p *pod) { p.registry.registered = true }), func(_ *testing.T, p *pod) {
		p.isReady()
	})
}

func TestReadyThoughNeverListed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config, *pod)
		says   string // what is missing
		within time.Duration
		cure   func(*pod)
	}{
		"a registry that fails":         {func(_ *Config, p *pod) { p.registry.mode = failing }, errBroken.Error(), 3 * time.Minute, func(p *pod) { p.registers() }},
		"a registry that never answers": {func(_ *Config, p *pod) { p.registry.mode = hanging }, "deadline", 3 * time.Minute, func(p *pod) { p.registers() }},
		"a registry with a fault":       {func(_ *Config, p *pod) { p.registry.mode = panics }, "panicked", 3 * time.Minute, func(p *pod) { p.registers() }},
		"a wrong name":                  {nil, "it is not up yet", 3 * time.Minute, func(p *pod) { p.registers() }},
		"no Lister, a wrong name": {func(c *Config, p *pod) { c.Registries[0].Registry = fakeLocator{p.registry} },
			"does not list the pod", 3 * time.Minute, func(p *pod) { p.registers() }},
		"withdrawn by somebody": {func(c *Config, p *pod) {
			p.registry.registered, p.registry.override = true, true
			c.Registries[0].Registry = p.registry
		}, "does not list the pod", 3 * time.Minute, func(p *pod) { p.registry.set(func() { p.registry.override = false }) }},
		"an app that starts late": {func(_ *Config, p *pod) {
			p.app.set(false)
			time.AfterFunc(2*time.Minute, func() { p.app.set(true) })
		}, "it is not up yet", 5*time.Minute + 500*ms, func(p *pod) { p.registers() }},
		"an app that never starts": {func(_ *Config, p *pod) { p.app.set(false) }, "it is not up yet", 3 * time.Minute, func(p *pod) { p.registers() }},
		"no port is known":         {func(c *Config, _ *pod) { c.App = nil }, "it is not up yet", 3 * time.Minute, func(p *pod) { p.registers() }},
	} {
		t.Run(name, func(t *testing.T) {
			notes := &notebook{}
			inPod(t, whenListed(notes, test.change), func(t *testing.T, p *pod) {
				if strings.Contains(name, "an app that") {
					p.waits("for 3m0s more at most, or 3m0s from the app's start")
				}
				after(test.within - time.Second)
				p.waits("registry", "for 1s more at most")
				if got := notes.read(); strings.Contains(got, "NotListed") {
					t.Errorf("told before the time is over\n%s", got)
				}
				after(time.Second)
				p.isReady()
				want := "NotListed: registry was not seen to list the pod within 3m0s, and the pod is ready all the same: clients may not find it: "
				if got := notes.read(); strings.Count(got, "NotListed") != 1 || !strings.Contains(got, want) || !strings.Contains(got, test.says) {
					t.Errorf("told\n%s", got)
				}
				if !EventNotListed.Warning() {
					t.Error("it is no warning")
				}
				s := p.Status(t.Context())
				if !strings.Contains(strings.Join(s.Warnings, "\n"), "not seen to list the pod") || *s.Registries[0].Listed || s.WaitingFor != "" {
					t.Errorf("status: %+v", s)
				}
				asks := p.asks()
				after(time.Hour)
				if n := p.asks() - asks; n > 35 {
					t.Errorf("asked %d times in an hour", n)
				}

				// It is still of interest, and no longer a warning when it is so.
				p.registry.set(func() { p.registry.mode = healthy })
				test.cure(p)
				after(maxLateListingPause + callLimit)
				synctest.Wait()
				s = p.Status(t.Context())
				if strings.Contains(strings.Join(s.Warnings, "\n"), "not seen to list the pod") || !*s.Registries[0].Listed || !p.Totals(t.Context()).Listed["registry"] {
					t.Errorf("when it is listed after all: %+v", s)
				}
				p.isReady()
				if got := notes.read(); strings.Contains(got, "NotListed") {
					t.Errorf("told again\n%s", got)
				}
			})
		})
	}
}

// Every registry has to list the pod; one that only knows of a role does not count.
func TestReadyWhenEachRegistryListsThePod(t *testing.T) {
	second := &fakeRegistry{}
	inPod(t, whenListed(&notebook{}, func(c *Config, p *pod) {
		p.registry.registered = true
		role := &fakeRole{fakeRegistry: &fakeRegistry{}}
		c.Registries = append(c.Registries, NamedRegistry{Name: "second", Registry: fakeLister{fakeLocator{second}}}, NamedRegistry{Name: "role", Registry: role})
	}), func(t *testing.T, p *pod) {
		after(time.Minute)
		p.waits("waiting for second to list the pod")
		if _, why := p.Readiness(); strings.Contains(why, "role") || strings.Contains(why, "registry to") {
			t.Errorf("waits for more: %q", why)
		}
		second.set(func() { second.registered = true })
		p.registry.set(func() { p.registry.registered = false }) // it was seen
		after(10 * time.Second)
		p.isReady()
		s := p.Status(t.Context())
		if s.Registries[2].Listed != nil {
			t.Error("a role counts as a list")
		}
		if _, said := p.Totals(t.Context()).Listed["role"]; said {
			t.Error("totals have the role as a list")
		}
	})
}

type fakeRole struct{ *fakeRegistry }

func (*fakeRole) Lists() bool { return false }

// A drain holds the wait up: it neither fulfils nor ends it.
func TestDrainWhileWaitingToBeListed(t *testing.T) {
	for _, stays := range []bool{false, true} {
		notes := &notebook{}
		inPod(t, whenListed(notes, func(c *Config, p *pod) {
			c.StayReady = stays
			c.Registries[0].ServerCache = 10 * time.Second
			p.registry.lag = 10 * time.Second
		}), func(t *testing.T, p *pod) {
			after(time.Minute)
			p.registers()
			after(time.Second)
			p.Begin(CauseCall)
			p.waits("draining")
			after(5 * time.Minute) // longer than the wait may take
			p.waits("draining")
			if got := notes.read(); strings.Contains(got, "NotListed") {
				t.Errorf("told in the drain\n%s", got)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.TakeBack(ctx); err != nil {
				t.Fatal(err)
			}
			after(time.Second)
			p.isReady() // its time is over
			if got := notes.read(); strings.Count(got, "NotListed") != 1 {
				t.Errorf("told\n%s", got)
			}
		})
		inPod(t, whenListed(notes, func(c *Config, p *pod) {
			c.StayReady = stays
			c.Registries[0].ServerCache = 10 * time.Second
			p.registry.lag = 10 * time.Second
		}), func(t *testing.T, p *pod) {
			after(time.Minute) // the pauses are 4 s by now
			p.registers()
			after(10 * time.Second) // it lists the pod from this moment on
			p.Begin(CauseCall)
			after(10 * ms)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.TakeBack(ctx); err != nil {
				t.Fatal(err)
			}
			// What it answers now is from before the withdrawal, or after it.
			after(5 * time.Second)
			p.waits("registry")
			after(10 * time.Second)
			p.isReady()
		})
	}
}
