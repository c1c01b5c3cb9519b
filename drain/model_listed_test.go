package drain

import "time"

// readyWhenListed holds that readiness waits for registries to list the pod, where
// it shall, for as long as it may and not for longer, and that what was seen holds.
func (m *model) readyWhenListed(s Status, signalled bool) {
	m.d.mu.Lock()
	since := later(m.d.began, m.d.app.startedAt)
	began := m.d.began
	m.d.mu.Unlock()
	unseen := 0
	for _, f := range m.registries {
		f.mu.Lock()
		if !f.sawListed {
			unseen++
		}
		f.mu.Unlock()
	}
	over := time.Since(since) >= m.cfg.ListedWithin || !m.overAt.IsZero()
	waits := m.cfg.ReadyWhenListed && unseen > 0 && !over
	serving := s.Phase == Serving && !signalled
	// The time may have been over while the pod served and the app had not started,
	// if only for a moment.
	servesSince := time.Now().Add(-time.Duration(s.Seconds*float64(time.Second)) - time.Millisecond)
	wasOver := serving && !since.Before(began.Add(m.cfg.ListedWithin)) && servesSince.Before(since)
	switch {
	case s.Ready && waits && wasOver:
		m.overAt = time.Now()
	case s.Ready && waits:
		m.fail("ready, and %d registries have not been seen to list the pod", unseen)
	case !s.Ready && serving && over:
		m.fail("not ready, and the time for registries to list the pod is over: %s", s.WaitingFor)
	case s.Ready && serving && m.overAt.IsZero() && over:
		m.overAt = time.Now() // an app that starts only now does not take it back
	case !s.Ready && m.wasReady && serving:
		m.fail("no longer ready: %s", s.WaitingFor)
	}
	m.wasReady = m.wasReady || s.Ready
}
