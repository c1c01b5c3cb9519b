package drain

import (
	"context"
	"time"
)

func (m *model) event() {
	switch n := m.rng.IntN(100); {
	case n < 14:
		m.preStop()
	case n < 17:
		m.log("begin by a call")
		m.begun()
		m.mu.Lock()
		m.byHand = true
		m.mu.Unlock()
		switch m.rng.IntN(4) {
		case 0:
			m.budget(Unbounded)
		case 1:
			m.budget(time.Duration(1+m.rng.IntN(int(2*m.cfg.GracePeriod/ms))) * ms)
		default:
			m.budget(m.cfg.Budget())
		}
	case n < 23:
		m.log("taken back by a call")
		m.mu.Lock()
		m.mayServe, m.byHand = true, false
		m.mu.Unlock()
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Duration(m.rng.IntN(3000))*time.Millisecond)
		err := m.d.TakeBack(ctx)
		cancel()
		m.log("take back: %v", err)
	case n < 26:
		m.log("postStart")
		m.mu.Lock()
		m.mayServe = true
		m.mu.Unlock()
		m.d.PostStart()
	case n < 29:
		m.signal(m.rng.IntN(4) == 0)
	case n < 50 && len(m.counters) > 0:
		c := m.counters[m.rng.IntN(len(m.counters))]
		v := int64(m.rng.IntN(6)) * int64(m.rng.IntN(2))
		m.log("a counter goes to %d", v)
		c.set(v)
		c.mu.Lock()
		if c.open = v; m.rng.IntN(3) == 0 {
			c.open++ // an idle one
		}
		c.mu.Unlock()
	case n < 60 && len(m.counters) > 0:
		c := m.counters[m.rng.IntN(len(m.counters))]
		md := []mode{healthy, healthy, healthy, failing, hanging, panics}[m.rng.IntN(6)]
		m.log("a counter turns to mode %d", md)
		c.mu.Lock()
		c.mode = md
		c.mu.Unlock()
	case n < 71 && len(m.registries) > 0:
		f := m.registries[m.rng.IntN(len(m.registries))]
		md := []mode{healthy, healthy, healthy, failing, hanging, lying, panics, halfway, slow, late}[m.rng.IntN(10)]
		m.log("a registry turns to mode %d", md)
		f.mu.Lock()
		f.mode, f.modeAt = md, time.Now()
		f.mu.Unlock()
	case n < 76:
		m.registerEvent()
	case n < 77 && len(m.registries) > 0:
		i := m.rng.IntN(len(m.registries))
		if !m.locators[i] {
			return
		}
		m.log("registry%d can no longer take the instance out", i)
		f := m.registries[i]
		f.mu.Lock()
		f.hopeless = "there is nobody else"
		f.mu.Unlock()
	case n < 81 && len(m.registries) > 0:
		m.log("a registry forgets the withdrawal: the app registered again")
		i := m.rng.IntN(len(m.registries))
		f := m.registries[i]
		if !m.ours[i] {
			f.set(func() { f.registered, f.override = true, false })
		}
	case n < 88 && len(m.switches) > 0:
		w := m.switches[m.rng.IntN(len(m.switches))]
		md := []mode{healthy, healthy, failing, hanging, panics, halfway, slow, late}[m.rng.IntN(8)]
		m.log("%s turns to mode %d", w.told, md)
		w.turn(md)
	case n < 97 && m.app != nil:
		m.appEvent()
	case m.app != nil:
		md := []mode{healthy, failing}[m.rng.IntN(2)]
		m.log("the look at the app turns to mode %d", md)
		m.mu.Lock()
		m.blind = m.blind || md == failing
		m.mu.Unlock()
		m.app.mu.Lock()
		m.app.mode = md
		m.app.mu.Unlock()
	}
}

// appEvent is something that happens to one of the app's ports, or all.
func (m *model) appEvent() {
	m.portsChange() // before and after: registries may be called in between
	defer m.portsChange()
	ports := m.app.Ports()
	port := ports[m.rng.IntN(len(ports))]
	m.app.mu.Lock()
	listeners := len(m.app.listeners[port])
	m.app.mu.Unlock()
	switch m.rng.IntN(6) {
	case 0, 1:
		m.log("the app listens")
		for _, p := range ports {
			m.app.mu.Lock()
			listens := len(m.app.listeners[p]) > 0
			m.app.mu.Unlock()
			if !listens {
				m.started(p)
			}
		}
		m.app.set(true)
	case 2:
		m.log("the app does not listen")
		m.app.set(false)
	case 3:
		m.log("port %d does not listen", port)
		m.app.close(port)
	case 4:
		m.log("port %d is started again, with no gap", port)
		m.started(port)
		m.app.start(port)
	case 5:
		if listeners == 0 {
			return
		}
		m.log("port %d is handed over", port)
		m.app.join(port)
		m.app.mu.Lock()
		unseen := m.app.mode == failing
		m.app.mu.Unlock()
		if !m.seen() || unseen {
			m.started(port) // nobody has seen both listen
		}
		m.app.leave(port)
	}
}

// seen lets the time of a look go by, and reports whether there was one.
func (m *model) seen() bool {
	m.app.mu.Lock()
	looks := m.app.looks
	m.app.mu.Unlock()
	after(lookWhileServing)
	m.app.mu.Lock()
	defer m.app.mu.Unlock()
	return m.app.looks > looks
}

// started is told that a port is started: where it was listened on when the last
// hook was called, that shows that the pod is not being deleted.
func (m *model) started(port int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mayServe = m.mayServe || m.atHook[port] || m.blind
}

// portsChange is called where the app's ports are about to change, or have changed.
func (m *model) portsChange() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.portsAt = time.Now()
}

func (m *model) begun() {
	m.d.mu.Lock()
	serving := m.d.run == nil
	m.d.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mayServe = m.mayServe && !serving
}

func (m *model) signal(interrupt bool) {
	m.log("signal, interrupt %v", interrupt)
	m.mu.Lock()
	if m.signalled.IsZero() {
		m.signalled = time.Now()
	}
	m.mu.Unlock()
	if interrupt {
		m.d.Interrupt()
	} else {
		m.d.Stop()
	}
}

// preStop calls the hook as a kubelet does; one in four hangs up.
func (m *model) preStop() {
	ctx, hangUp := context.WithCancel(m.t.Context())
	if m.rng.IntN(4) == 0 {
		ctx, hangUp = context.WithTimeout(m.t.Context(), time.Duration(m.rng.IntN(3000))*time.Millisecond)
	}
	m.log("preStop")
	m.begun()
	called := time.Now()
	standing := m.standing()
	atHook := map[int]bool{}
	if m.app != nil {
		m.app.mu.Lock()
		for port := range m.app.listeners {
			atHook[port] = true
		}
		m.app.mu.Unlock()
	}
	m.mu.Lock()
	m.hookAt, m.atHook = called, atHook
	m.mu.Unlock()
	m.callers.Go(func() {
		defer hangUp()
		report, err := m.d.PreStop(ctx)
		took := time.Since(called)
		m.log("preStop returns %s after %v (%v)", report.Outcome, took, err)
		if took > m.cfg.Budget() {
			m.fail("preStop took %v, which is more than the budget of %v", took, m.cfg.Budget())
		}
		if err == nil {
			m.returned(report)
			m.stillDrained(report, standing)
		}
	})
}
