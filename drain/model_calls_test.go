package drain

import (
	"slices"
	"time"
)

// calls are those to one registry that have ended, by when they began.
type calls struct {
	withdrew time.Time   // the last Withdraw that succeeded
	gone     time.Time   // the last question that was answered by yes
	left     time.Time   // the last Deregister that succeeded
	failed   []time.Time // of any kind
}

// modelSwitch is a proxy or the notice.
type modelSwitch struct {
	*fakeSwitch
	told   string // how the timeline says that it was told of a drain
	undone bool   // it can be told that the drain was taken back
	calls  *calls // withdrew is the last call that told it of a drain
}

func (m *model) newSwitch(told string, undone bool) *fakeSwitch {
	w := modelSwitch{fakeSwitch: &fakeSwitch{on: undone && m.rng.IntN(2) == 0, since: m.start}, told: told, undone: undone, calls: &calls{}}
	w.onDone = func(on bool, began time.Time, err error) {
		m.log("%s: %v: %v", told, on, err)
		m.mu.Lock()
		defer m.mu.Unlock()
		if on && err == nil && began.After(w.calls.withdrew) {
			w.calls.withdrew = began
		}
	}
	m.switches = append(m.switches, w)
	return w.fakeSwitch
}

// withProxy is a counter, some of them with a proxy that can be told of drains.
func (m *model) withProxy(name string, f *fakeCounter) Counter {
	told := name + ": takes no new work"
	switch m.rng.IntN(4) {
	case 0:
		return fakeStopper{f, m.newSwitch(told, false)}
	case 1, 2:
		return fakeProxy{fakeStopper{f, m.newSwitch(told, true)}}
	}
	return f
}

func (m *model) registryAsked(i int, gone bool, began time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil:
	case !gone:
		a := &m.asked[i]
		if now := time.Now(); !a.until.Equal(now) {
			a.until, a.before = now, a.goneSince
		}
		a.goneSince = time.Time{}
	case m.asked[i].goneSince.IsZero():
		m.asked[i].goneSince = time.Now()
	}
	if err == nil && gone {
		m.calls[i].gone = began
	}
}

func (m *model) registryCallDone(i int, op string, began time.Time, err error) {
	m.log("registry%d: %s ends: %v", i, op, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &m.calls[i]
	switch {
	case err != nil:
		c.failed = append(c.failed, began)
	case op == "withdraw":
		c.withdrew = began
	case op == "deregister":
		c.left = began
	}
}

// ownCalls holds that what is said of a drain comes of calls that were made for
// it, and not for one before.
func (m *model) ownCalls(s Status) {
	if s.Phase == Serving {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	began := *s.Began
	for i, r := range s.Registries {
		c := m.calls[i]
		failures := 0
		for _, at := range c.failed {
			if !at.Before(began) {
				failures++
			}
		}
		switch {
		case r.Withdrawn != nil && c.withdrew.Before(began):
			m.t.Errorf("registry%d counts as withdrawn by a call of an earlier drain", i)
		case r.Gone != nil && c.gone.Before(began):
			m.t.Errorf("registry%d counts as gone by an answer to an earlier drain", i)
		case r.State == "deregistered" && c.left.Before(began):
			m.t.Errorf("registry%d counts as deregistered, and no call has done so", i)
		case r.Failures > failures:
			m.t.Errorf("registry%d counts %d failures, and %d calls of this drain have failed", i, r.Failures, failures)
		}
	}
	for _, w := range m.switches {
		said := slices.ContainsFunc(s.Timeline, func(e TimelineEntry) bool { return e.Text == w.told })
		if said && w.calls.withdrew.Before(began) {
			m.t.Errorf("%q comes of a call of an earlier drain", w.told)
		}
	}
}

// toldToLeave holds that whoever is to be told of a drain is told within the
// time that a call that hangs and the wait between two tries take, and an earlier
// call to take effect.
func (m *model) toldToLeave(s Status) {
	const within = 3*callLimit + 4*time.Second
	if s.Phase == Serving || time.Since(*s.Began) < within || s.Deadline != nil && time.Until(*s.Deadline) <= 0 || m.over() {
		return
	}
	for _, w := range m.switches {
		if on, since, well := w.is(); well && !on && time.Since(since) >= within {
			m.fail("%q: not told of a drain that began %v ago", w.told, time.Since(*s.Began))
		}
	}
}
