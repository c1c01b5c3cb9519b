package drain

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Status is the state now.
type Status struct {
	Phase      Phase           `json:"phase"`
	Seconds    float64         `json:"phase_seconds"` // in this phase
	Ready      bool            `json:"ready"`
	Cause      Cause           `json:"cause,omitempty"`
	Began      *time.Time      `json:"began,omitempty"`
	Deadline   *time.Time      `json:"deadline,omitempty"` // when the budget ends; absent if it does not
	BudgetLeft *float64        `json:"budget_left_seconds,omitempty"`
	WaitingFor string          `json:"waiting_for,omitempty"`
	Waits      []Wait          `json:"waits,omitempty"`
	InFlight   *int64          `json:"in_flight"` // null when a counter cannot be read
	Counters   []CounterState  `json:"counters,omitempty"`
	Registries []RegistryState `json:"registries,omitempty"`
	Timeline   []TimelineEntry `json:"timeline,omitempty"`
	Warnings   []string        `json:"warnings,omitempty"`   // what should be corrected
	LastDrain  *Report         `json:"last_drain,omitempty"` // when it was taken back
}

// CounterState is what one counter said last.
type CounterState struct {
	Name     string  `json:"name"`
	InFlight *int64  `json:"in_flight"` // null when it cannot be read
	Arrived  *uint64 `json:"arrived,omitempty"`
	Error    string  `json:"error,omitempty"`
	// Learned is what the counter has learned of the app; absent if it does
	// not learn.
	Learned *LearnedState `json:"learned,omitempty"`
}

// LearnedState is Learned in a report.
type LearnedState struct {
	Text           string  `json:"text"`
	Answers        uint64  `json:"answers"`
	LongestSeconds float64 `json:"longest_seconds"`
	// SilenceSeconds is null while too little was seen: a connection in doubt
	// counts until it is closed or the budget ends.
	SilenceSeconds *float64 `json:"silence_seconds"`
}

// RegistryState is where one registry stands.
type RegistryState struct {
	Name string `json:"name"`
	// State is "not registered" (by the sidecar, where it registers the app, or the
	// app is not ready), "in service", "restoring", "withdrawing", "withdrawn" (accepted,
	// and the registry still lists the pod), "gone" (no longer lists it), "forgotten"
	// (its clients have refreshed), "deregistering" or "deregistered"; "not found"
	// if the registry was searched and has never held the pod's instance; "given
	// up" if the pod cannot be withdrawn.
	State string `json:"state"`
	// How long after the drain's beginning it got there; absent if it did not.
	Withdrawn *float64 `json:"withdrawn_after_seconds,omitempty"`
	Gone      *float64 `json:"gone_after_seconds,omitempty"`
	// Listed reports whether the registry has been seen to list the pod since the
	// process began; absent where readiness does not wait for that.
	Listed   *bool  `json:"listed,omitempty"`
	GaveUp   string `json:"gave_up,omitempty"`  // why the pod cannot be withdrawn
	Failures int    `json:"failures,omitempty"` // failed calls in this drain
	Error    string `json:"error,omitempty"`    // of the last call, if it failed; or why the instance was not found
}

// readings returns those of the drain under way, or else new ones.
func (d *Drainer) readings(ctx context.Context) []reading {
	d.mu.Lock()
	var readings []reading
	if d.run != nil && d.run.outcome == "" {
		readings = d.run.last.readings
	}
	d.mu.Unlock()
	if readings == nil {
		readings = d.pollers.read(ctx).readings
	}
	return readings
}

// statusLocked is the state now, with these readings of the counters.
func (d *Drainer) statusLocked(readings []reading, now time.Time) Status {
	s := Status{
		Phase:      Serving,
		Seconds:    seconds(now.Sub(d.totals.since)),
		Ready:      d.readyLocked(),
		InFlight:   known(readings),
		Counters:   d.counterStates(readings),
		Registries: d.registryStatesLocked(now),
		Warnings:   slices.Concat(d.app.warningsLocked(), d.notFoundWarningsLocked(), d.notListedWarningsLocked()),
		WaitingFor: d.listingWaitLocked(now),
	}
	run := d.run
	if run == nil {
		s.LastDrain = d.lastReport
		return s
	}
	s.Phase, s.Seconds, s.Cause = run.phase, seconds(now.Sub(run.since)), run.cause
	s.Began = &run.began
	if end := run.budgetEnd; !end.IsZero() {
		left := seconds(max(0, end.Sub(now)))
		s.Deadline, s.BudgetLeft = &end, &left
	}
	s.WaitingFor = sentence(run.present, now)
	if run.outcome == "" {
		s.WaitingFor = run.waitingFor(now)
	}
	s.Waits = run.waits.list(now)
	s.Timeline = run.timeline.list()
	return s
}

// counterStates joins what the counters said with what they have learned. The
// readings are those of all counters, in their order, or none.
func (d *Drainer) counterStates(readings []reading) []CounterState {
	var states []CounterState
	for i, r := range readings {
		state := CounterState{Name: r.name, Learned: d.pollers.all[i].learned()}
		if r.err != nil {
			state.Error = clip(r.err.Error())
		} else {
			state.InFlight = &r.InFlight
			if r.HasArrived {
				state.Arrived = &r.Arrived
			}
		}
		states = append(states, state)
	}
	return states
}

// learned returns what the counter has learned; nil when it does not learn.
func (p *poller) learned() *LearnedState {
	learner, ok := p.Counter.(Learner)
	if !ok {
		return nil
	}
	var l Learned
	if err := guard(p.Name+" counter", func() error { l = learner.Learned(); return nil }); err != nil {
		l.Text = err.Error()
	}
	s := &LearnedState{Text: clip(l.Text), Answers: l.Answers, LongestSeconds: seconds(l.Longest)}
	if l.Silence > 0 {
		silence := seconds(l.Silence)
		s.SilenceSeconds = &silence
	}
	return s
}

// registryStatesLocked is where each registry stands.
func (d *Drainer) registryStatesLocked(now time.Time) []RegistryState {
	var states []RegistryState
	for _, r := range d.registrations {
		s := RegistryState{Name: r.Name, State: r.stateLocked(now), Error: r.lastErr}
		if r.listing.awaited {
			seen := !r.listing.open()
			s.Listed = &seen
		}
		if run := d.run; run != nil {
			s.Failures = r.failures
			s.Withdrawn = since(run.began, r.withdrawnAt)
			if s.GaveUp = r.gaveUp; r.gaveUp == "" {
				s.Gone = since(run.began, r.goneAt)
			}
		}
		if s.Error == "" && r.unknownLocked() {
			s.Error = r.presence.why
		}
		states = append(states, s)
	}
	return states
}

// notFoundWarningsLocked is one sentence for each registry that has never held the
// pod's instance.
func (d *Drainer) notFoundWarningsLocked() (warnings []string) {
	for _, r := range d.registrations {
		if r.unknownLocked() {
			warnings = append(warnings, fmt.Sprintf("%s: the pod's instance was never found, so a drain cannot withdraw it: %s", r.Name, r.presence.why))
		}
	}
	return warnings
}

func since(began, at time.Time) *float64 {
	if at.IsZero() {
		return nil
	}
	s := seconds(at.Sub(began))
	return &s
}

// stateLocked is RegistryState's State.
func (r *registration) stateLocked(now time.Time) string {
	switch forgotten := r.forgottenAtLocked(); {
	case r.target == inService && r.unknownLocked(), r.target == outOfService && r.absentLocked(), r.target == deregistered && isClosed(r.settled) && r.unknownLocked():
		return "not found"
	case r.target == inService && (r.mayBeWithdrawn || r.recovery.underWay()):
		return "restoring"
	case r.target == inService && r.registering.ours() && (!r.registering.registered || !r.registering.listed):
		return "not registered"
	case r.target == inService:
		return "in service"
	case r.target == deregistered && isClosed(r.settled):
		return "deregistered"
	case r.target == deregistered:
		return "deregistering"
	case r.gaveUp != "":
		return "given up"
	case r.withdrawnAt.IsZero():
		return "withdrawing"
	case forgotten.IsZero():
		return "withdrawn"
	case now.Before(forgotten):
		return "gone"
	}
	return "forgotten"
}
