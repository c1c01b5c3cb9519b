package drain

import (
	"fmt"
	"strings"
	"time"
)

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
	Budget     *float64        `json:"budget_seconds"` // null when it may take as long as it takes
	InFlight   *int64          `json:"in_flight"`      // null when a counter cannot be read
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
		InFlight:   known(run.last.readings),
		WaitingFor: clip(sentence(run.present, now)),
		Reason:     run.why,
		Registries: d.registryStatesLocked(now),
		Counters:   d.counterStates(run.last.readings),
		Waits:      run.waits.list(now),
		Timeline:   run.timeline.list(),
	}
	if b := run.budget(); b != Unbounded {
		s := seconds(b)
		r.Budget = &s
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

// emitEndLocked emits how a drain ended. Taking it back is another event, which
// may come later.
func (d *Drainer) emitEndLocked(run *drainRun, took time.Duration) {
	switch run.outcome {
	case OutcomeDrained:
		d.journal.emitLocked(EventDrained, "drained after %s: %s", short(took), run.phaseTimes())
	case OutcomeNotFound:
		d.journal.emitLocked(EventNotFound, "nothing is in flight after %s, but %s: %s", short(took), run.why, run.phaseTimes())
	case OutcomeTakenBack: // emitted by takeBackLocked
	case OutcomeExpired, OutcomeCutShort:
		var text string
		switch {
		case run.outcome == OutcomeCutShort:
			text = fmt.Sprintf("cut short after %s (%s)", short(took), run.why)
		case run.why != "":
			text = fmt.Sprintf("expired after %s: %s", short(took), run.why)
		default:
			text = fmt.Sprintf("the budget of %s ended", budgetText(run.budget()))
		}
		if waiting := sentence(run.present, run.since); waiting != "" {
			text += ", " + waiting
		}
		d.journal.emitLocked(EventExpired, "%s: %s", text, run.phaseTimes())
	}
}

// phaseTimes says how long each phase took.
func (r *drainRun) phaseTimes() string {
	var texts []string
	for _, p := range []Phase{Withdrawing, Propagating, Draining} {
		texts = append(texts, fmt.Sprintf("%s %s", p, short(r.waited[p])))
	}
	return strings.Join(texts, ", ")
}
