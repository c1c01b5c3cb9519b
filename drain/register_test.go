package drain

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// calledAt is a call to a registry, with when it began.
type calledAt struct {
	op string
	at time.Duration
}

// recorder notes the calls to a registry.
type recorder struct {
	mu    sync.Mutex
	began time.Time
	calls []calledAt
}

func (r *recorder) record(op string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, calledAt{op, time.Since(r.began)})
}

// take returns the calls since the last time.
func (r *recorder) take() (ops []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		ops = append(ops, c.op)
	}
	r.calls = nil
	return ops
}

// inRegisteringPod runs f in a pod whose app the sidecar registers. It is not known
// to its registry, and listens.
func inRegisteringPod(t *testing.T, change func(*Config, *pod), f func(t *testing.T, p *pod, calls *recorder)) {
	t.Helper()
	calls := &recorder{}
	inPod(t, func(c *Config, p *pod) {
		calls.began = time.Now()
		p.registry.registered = false
		p.registry.onCall = calls.record
		c.Registries[0].Registry, c.Registries[0].Register = fakeRegistrar{p.registry}, true
		if change != nil {
			change(c, p)
		}
	}, func(t *testing.T, p *pod) { f(t, p, calls) })
}

func (p *pod) wantOps(calls *recorder, want ...string) {
	p.t.Helper()
	synctest.Wait()
	if got := calls.take(); !slices.Equal(got, want) {
		p.t.Fatalf("calls %q, want %q", got, want)
	}
}

func (p *pod) state() string { return p.Status(p.t.Context()).Registries[0].State }

func TestAnAppIsRegisteredWhenItListens(t *testing.T) {
	inRegisteringPod(t, func(_ *Config, p *pod) { p.app.set(false) }, func(t *testing.T, p *pod, calls *recorder) {
		p.wantOps(calls, "register not ready")
		if ready, why := p.Readiness(); !ready {
			t.Errorf("not ready: %s", why)
		}
		if got := p.state(); got != "not registered" {
			t.Errorf("state %q", got)
		}
		p.app.set(true)
		after(time.Second)
		p.wantOps(calls, "register")
		if got := p.state(); got != "in service" {
			t.Errorf("state %q", got)
		}
		after(3 * registerEvery)
		p.wantOps(calls, "register", "register", "register")
		p.app.set(false)
		after(time.Second)
		p.wantOps(calls, "register not ready")
	})
}

// An app that can be asked is not ready after three answers in a row, and ready after
// one.
func TestAnAppIsRegisteredWhenItSaysThatItIsReady(t *testing.T) {
	app := &modelReady{}
	inRegisteringPod(t, func(c *Config, _ *pod) { c.AppReady = app.ask }, func(t *testing.T, p *pod, calls *recorder) {
		after(10 * ms)
		p.wantOps(calls)
		after(2 * time.Second)
		p.wantOps(calls, "register not ready")
		app.set(func() { app.ready = true })
		after(time.Second)
		p.wantOps(calls, "register")
		app.set(func() { app.ready = false })
		after(time.Second)
		app.set(func() { app.ready = true })
		after(3 * time.Second)
		p.wantOps(calls)
		app.set(func() { app.mode = hanging })
		after(7 * time.Second)
		if ops := calls.take(); len(ops) == 0 || ops[len(ops)-1] != "register not ready" {
			t.Errorf("calls %q", ops)
		}
	})
}

// The registry is down at start, and keeps nobody from being ready.
func TestARegistryThatIsDownAtStart(t *testing.T) {
	inRegisteringPod(t, func(_ *Config, p *pod) { p.registry.mode = failing }, func(t *testing.T, p *pod, calls *recorder) {
		after(time.Minute)
		if !p.Ready() {
			t.Error("not ready")
		}
		if n := len(calls.take()); n < 10 || n > 40 {
			t.Errorf("%d tries in a minute", n)
		}
		if found, known := p.Totals(t.Context()).Found["registry"]; found || !known {
			t.Errorf("found %v, known %v, and it is not registered", found, known)
		}
		p.registry.set(func() { p.registry.mode = healthy })
		after(5 * time.Second)
		p.wantOps(calls, "register")
		if !p.Totals(t.Context()).Found["registry"] {
			t.Error("not found, and it is registered")
		}
	})
}

// In a drain nothing is registered, and no lease is renewed: what servers tell each
// other of that could come after the instance was deregistered.
func TestNothingIsRegisteredInADrain(t *testing.T) {
	inRegisteringPod(t, func(c *Config, p *pod) {
		c.GracePeriod = 2 * time.Minute
		p.counter.inFlight = 1
	}, func(t *testing.T, p *pod, calls *recorder) {
		after(time.Second)
		p.wantOps(calls, "register")
		done := make(chan Report, 1)
		go func() {
			report, _ := p.hook()
			done <- report
		}()
		after(30 * time.Second)
		p.wantOps(calls, "withdraw")
		p.registry.set(func() { p.registry.registered, p.registry.override = false, false }) // its lease has ended
		after(30 * time.Second)
		p.wantOps(calls)
		p.counter.set(0)
		if report := <-done; report.Outcome != OutcomeDrained {
			t.Errorf("outcome %s", report.Outcome)
		}
		p.app.set(false)
		p.Stop()
		after(2 * time.Second)
		p.wantOps(calls, "deregister")
	})
}

// When a drain is taken back, the registry is told what the app is before the
// withdrawal is undone: an app that is not ready would be restored as one that is.
func TestARegistrationAfterADrainWasTakenBack(t *testing.T) {
	inRegisteringPod(t, nil, func(t *testing.T, p *pod, calls *recorder) {
		after(time.Second)
		p.wantOps(calls, "register")
		p.Begin(CauseCall)
		after(time.Second)
		p.app.set(false)
		p.wantOps(calls, "withdraw")
		if err := p.TakeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.wantOps(calls, "register not ready", "restore")
		p.app.set(true)
		after(time.Second)
		p.wantOps(calls, "register")
	})
}

// A registration that was under way when the drain began may put the pod back after
// it was withdrawn: its clients have forgotten it only some time after that.
func TestARegistrationThatTakesEffectInADrain(t *testing.T) {
	inRegisteringPod(t, func(c *Config, p *pod) {
		p.registry.mode = late
		c.GracePeriod, c.Registries[0].ClientRefresh, c.Quiet = time.Minute, 500*ms, 100*ms
	}, func(t *testing.T, p *pod, _ *recorder) {
		after(100 * ms)
		began := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			_, took := p.hook()
			done <- took
		}()
		synctest.Wait()
		p.registry.set(func() { p.registry.mode = healthy })
		took := <-done
		if took < late.takes() {
			t.Errorf("drained after %v, and the registration had yet to take effect", took)
		}
		p.registry.mu.Lock()
		defer p.registry.mu.Unlock()
		if p.registry.registered && !p.registry.override || time.Since(began) > 40*time.Second {
			t.Error("in service at the end of the drain")
		}
	})
}

// A Register that ends well after the drain has begun leaves no doubt, and costs the
// drain no time.
func TestARegistrationThatEndsWellInADrain(t *testing.T) {
	inRegisteringPod(t, func(_ *Config, p *pod) { p.registry.mode = slow }, func(t *testing.T, p *pod, _ *recorder) {
		after(100 * ms)
		done := make(chan time.Duration, 1)
		go func() {
			_, took := p.hook()
			done <- took
		}()
		synctest.Wait()
		p.registry.set(func() { p.registry.mode = healthy })
		if took := <-done; took > slow.takes()+7*time.Second {
			t.Errorf("the drain took %v", took)
		}
	})
}

// Whoever is no Registrar is called as ever.
func TestARegistryThatCannotRegister(t *testing.T) {
	calls := &recorder{}
	inPod(t, func(c *Config, p *pod) {
		c.AppReady = func(context.Context) error { t.Error("the app is asked for nothing"); return nil }
		p.registry.onCall = calls.record
	}, func(_ *testing.T, p *pod) {
		after(time.Minute)
		p.wantOps(calls)
	})
}
