package drain

import (
	"context"
	"slices"
	"sync"
	"time"
)

// modelReady is an app that can be asked whether it is ready.
type modelReady struct {
	mu    sync.Mutex
	mode  mode
	ready bool
	since time.Time
}

func (r *modelReady) ask(ctx context.Context) error {
	r.mu.Lock()
	m, ready := r.mode, r.ready
	r.mu.Unlock()
	if err := m.behave(ctx); err != nil {
		return err
	}
	if !ready {
		return errBroken
	}
	return nil
}

func (r *modelReady) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := func() bool { return r.ready && r.mode == healthy }
	was := is()
	if change(); is() != was {
		r.since = time.Now()
	}
}

// seenNotReadyWithin is how long an app that is not ready may still count as ready:
// three answers of a second, and the pauses between them, or a look at its ports.
const seenNotReadyWithin = 8 * time.Second

// readiness reports whether the app is ready, and since when it is so.
func (m *model) readiness() (ready bool, since time.Time) {
	if m.appReady != nil {
		m.appReady.mu.Lock()
		defer m.appReady.mu.Unlock()
		return m.appReady.ready && m.appReady.mode == healthy, m.appReady.since
	}
	m.app.mu.Lock()
	ready = !slices.ContainsFunc(m.app.Ports(), func(port int) bool { return len(m.app.listeners[port]) == 0 })
	m.app.mu.Unlock()
	m.mu.Lock() // only now: the change that was just seen has set it before
	defer m.mu.Unlock()
	return ready, m.portsAt
}

// mayRegister holds that the app is registered only while the pod serves, and it is
// ready.
func (m *model) mayRegister(i int) {
	m.d.mu.Lock()
	run, stopping := m.d.run, m.d.stopping
	m.d.mu.Unlock()
	if run != nil && run.began.Before(time.Now()) {
		m.fail("registry%d: registered in a drain", i)
	}
	m.mu.Lock()
	blind := m.blind && m.appReady == nil // what cannot be seen is taken as if it listened
	m.mu.Unlock()
	if ready, since := m.readiness(); !ready && !stopping && !blind && time.Since(since) > seenNotReadyWithin {
		m.fail("registry%d: registered, and the app is not ready since %v", i, time.Since(since))
	}
}

// registeredAgain holds that what a registry has lost is registered again, and that
// an app that is not ready is not.
func (m *model) registeredAgain() {
	for i, f := range m.registries {
		if !m.ours[i] {
			continue
		}
		ready, since := m.readiness()
		if time.Since(since) < time.Minute {
			continue
		}
		f.mu.Lock()
		in := f.registered && !f.override
		f.mu.Unlock()
		if in != ready {
			m.fail("registry%d: in service %v, and the app is ready: %v", i, in, ready)
		}
	}
}

func (m *model) registerEvent() {
	switch {
	case m.appReady != nil && m.rng.IntN(2) == 0:
		to := m.rng.IntN(3) > 0
		md := []mode{healthy, healthy, healthy, failing, hanging, panics}[m.rng.IntN(6)]
		m.log("the app's readiness: %v, mode %d", to, md)
		m.appReady.set(func() { m.appReady.ready, m.appReady.mode = to, md })
	case len(m.registries) > 0:
		i := m.rng.IntN(len(m.registries))
		if m.ours[i] {
			m.log("registry%d is restarted, and has lost everything", i)
			m.registries[i].set(func() { m.registries[i].registered, m.registries[i].override = false, false })
		}
	}
}
