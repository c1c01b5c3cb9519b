package drain

import "time"

// PhaseTime is how long a drain was in one phase.
type PhaseTime struct {
	Phase   Phase   `json:"phase"`
	Seconds float64 `json:"seconds"`
}

// Report describes a drain that has ended.
type Report struct {
	Outcome    Outcome         `json:"outcome"`
	Cause      Cause           `json:"cause"`
	Began      time.Time       `json:"began"`
	Seconds    float64         `json:"seconds"`
	Budget     float64         `json:"budget_seconds"`
	InFlight   *int64          `json:"in_flight"` // null when a counter cannot be read
	WaitingFor string          `json:"waiting_for,omitempty"`
	Reason     string          `json:"reason,omitempty"` // why it ended so, where the outcome does not say
	Phases     []PhaseTime     `json:"phases"`
	Waits      []Wait          `json:"waits,omitempty"`
	Registries []RegistryState `json:"registries,omitempty"`
	Counters   []CounterState  `json:"counters,omitempty"`
	Timeline   []TimelineEntry `json:"timeline"`
}

// reportLocked returns the report of a drain that ends now.
func (d *Drainer) reportLocked(run *drainRun, now time.Time) Report {
	r := Report{
		Outcome:    run.outcome,
		Cause:      run.cause,
		Began:      run.began,
		Seconds:    seconds(now.Sub(run.began)),
		Budget:     seconds(d.cfg.Budget()),
		InFlight:   known(run.last.readings),
		WaitingFor: clip(sentence(run.present, now)),
		Reason:     run.why,
		Registries: d.registryStatesLocked(now),
		Counters:   d.counterStates(run.last.readings),
		Waits:      run.waits.list(now),
		Timeline:   run.timeline.list(),
	}
	for _, p := range []Phase{Withdrawing, Propagating, Draining} {
		r.Phases = append(r.Phases, PhaseTime{p, seconds(run.waited[p])})
	}
	return r
}

// known is the sum of readings; nil when a counter could not be read.
func known(readings []reading) *int64 {
	sum, ok := inFlight(readings)
	if !ok {
		return nil
	}
	return &sum
}
