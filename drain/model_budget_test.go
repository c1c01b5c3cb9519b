package drain

import (
	"context"
	"time"
)

// budget begins or joins a drain by a call, and holds that this never brings the
// end of one under way nearer.
func (m *model) budget(b time.Duration) {
	ctx, cancel := context.WithCancel(m.t.Context())
	cancel() // counters that hang must not hold this up
	before := m.d.Status(ctx)
	m.log("by a call, with a budget of %v", b)
	if b == m.cfg.Budget() {
		m.d.Begin(CauseCall)
	} else {
		m.d.BeginWithin(b)
	}
	now := m.d.Status(ctx)
	underWay := before.Phase == Withdrawing || before.Phase == Propagating || before.Phase == Draining
	switch {
	case !underWay || now.Began == nil || !now.Began.Equal(*before.Began):
	case now.Deadline != nil && (before.Deadline == nil || now.Deadline.Before(*before.Deadline)):
		m.fail("a call has shortened the budget: from %v to %v", before.Deadline, now.Deadline)
	}
}

// standing is a drain that a hook finds ended, as drained.
type standing struct {
	began  time.Time // zero: there is none
	called time.Time
	late   bool // its grace period is over, or has never begun
}

func (m *model) standing() standing {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	run := m.d.run
	if run == nil || run.outcome != OutcomeDrained {
		return standing{}
	}
	called := time.Now()
	if c := run.confirming; c != nil {
		called = c.trigger.at // it waits for what an earlier one has asked for
	}
	return standing{run.began, called, !run.graceRuns || !time.Now().Before(run.graceEnd)}
}

// askedSince reports of each registry whether it has said since then that the
// pod is gone.
func (m *model) askedSince(t time.Time) (asked []bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		asked = append(asked, !c.gone.Before(t))
	}
	return asked
}

// stillDrained holds that a hook gets the report of a drain that had ended before
// it only if the pod is still gone from its registries, and still quiet.
func (m *model) stillDrained(r Report, found standing) {
	if !found.late || !r.Began.Equal(found.began) || r.Outcome != OutcomeDrained {
		return
	}
	m.d.mu.Lock()
	closing := m.d.closing || !m.d.stoppedAt.IsZero()
	m.d.mu.Unlock()
	if closing {
		return // a process that ends begins nothing
	}
	for i, asked := range m.askedSince(found.called) {
		if !asked {
			m.fail("registry%d was not asked whether the pod is still gone, and the hook returned", i)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lastBusy.Equal(time.Now()) {
		return // in the bubble, that may have come right after the look
	}
	var sum int64
	for i, l := range m.readings {
		if l.err != nil || !l.any {
			m.t.Errorf("still drained, while counter%d is unreadable: %v", i, l.err)
		}
		sum += l.InFlight
	}
	if sum > m.cfg.Threshold {
		m.t.Errorf("still drained, with %d in flight", sum)
	}
}
