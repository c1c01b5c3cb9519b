package drain

import (
	"context"
	"time"
)

// TimelineEntry is one line of a drain's timeline.
type TimelineEntry struct {
	Seconds float64 `json:"seconds"` // since the drain began
	Text    string  `json:"event"`
}

// PhaseTime is how long a drain was in one phase.
type PhaseTime struct {
	Phase   Phase   `json:"phase"`
	Seconds float64 `json:"seconds"`
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

// LearnedState is Learned, as people see it.
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
	// State is "in service", "restoring", "withdrawing", "withdrawn" (told,
	// and it still lists the pod), "gone" (no longer lists it), "forgotten"
	// (its clients have refreshed), "deregistering" or "deregistered".
	State string `json:"state"`
	// How long after the drain's beginning it got there; absent if it did not.
	Withdrawn *float64 `json:"withdrawn_after_seconds,omitempty"`
	Gone      *float64 `json:"gone_after_seconds,omitempty"`
	Failures  int      `json:"failures,omitempty"` // failed calls in this drain
	Error     string   `json:"error,omitempty"`    // of the last call, if it failed
}

// Report is what a drain came to.
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

// Status is the state now.
type Status struct {
	Phase      Phase           `json:"phase"`
	Seconds    float64         `json:"phase_seconds"` // in this phase
	Ready      bool            `json:"ready"`
	Cause      Cause           `json:"cause,omitempty"`
	Began      *time.Time      `json:"began,omitempty"`
	Deadline   *time.Time      `json:"deadline,omitempty"` // when the budget ends
	BudgetLeft *float64        `json:"budget_left_seconds,omitempty"`
	WaitingFor string          `json:"waiting_for,omitempty"`
	Waits      []Wait          `json:"waits,omitempty"`
	InFlight   *int64          `json:"in_flight"` // null when a counter cannot be read
	Counters   []CounterState  `json:"counters,omitempty"`
	Registries []RegistryState `json:"registries,omitempty"`
	Timeline   []TimelineEntry `json:"timeline,omitempty"`
	Warnings   []string        `json:"warnings,omitempty"`   // what people should mend
	LastDrain  *Report         `json:"last_drain,omitempty"` // when it was taken back
}

// Status tells the state now. While no drain is under way it reads the
// counters, for as long as ctx and the limit of one reading allow.
func (d *Drainer) Status(ctx context.Context) Status {
	d.mu.Lock()
	l := d.leaving
	var samples []sample
	if l != nil {
		samples = l.samples
	}
	fresh := l == nil || l.outcome != "" || samples == nil
	d.mu.Unlock()
	if fresh {
		samples = d.readAll(ctx).samples
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	s := Status{
		Phase:      Serving,
		Seconds:    seconds(now.Sub(d.totals.since)),
		Ready:      d.leaving == nil && !d.stopping || d.cfg.StayReady,
		InFlight:   known(samples),
		Counters:   d.counterStates(samples),
		Registries: d.registryStates(now),
		Warnings:   d.warningsLocked(),
	}
	if l = d.leaving; l == nil {
		s.LastDrain = d.last
		return s
	}
	s.Phase, s.Seconds, s.Cause = l.phase, seconds(now.Sub(l.since)), l.cause
	s.Began, s.Deadline = &l.began, &l.budgetEnd
	left := seconds(max(0, l.budgetEnd.Sub(now)))
	s.BudgetLeft, s.WaitingFor = &left, sentence(l.present, now)
	if l.outcome == "" {
		s.WaitingFor = l.waitingFor(now)
	}
	s.Waits = l.waits.list(now)
	s.Timeline = append([]TimelineEntry(nil), l.timeline...)
	return s
}

// reportOf is what l came to. Callers hold d.mu.
func (d *Drainer) reportOf(l *leaving) Report {
	now := time.Now()
	r := Report{
		Outcome:    l.outcome,
		Cause:      l.cause,
		Began:      l.began,
		Seconds:    seconds(now.Sub(l.began)),
		Budget:     seconds(d.cfg.Budget()),
		InFlight:   known(l.samples),
		WaitingFor: clip(sentence(l.present, now)),
		Reason:     l.why,
		Registries: d.registryStates(now),
		Counters:   d.counterStates(l.samples),
		Waits:      l.waits.list(now),
		Timeline:   append([]TimelineEntry(nil), l.timeline...),
	}
	for _, p := range []Phase{Withdrawing, Propagating, Draining} {
		r.Phases = append(r.Phases, PhaseTime{p, seconds(l.waited[p])})
	}
	return r
}

func known(samples []sample) *int64 {
	sum, ok := inFlight(samples)
	if !ok {
		return nil
	}
	return &sum
}

// counterStates joins what the counters said with what they have learned. The
// samples are those of all counters, in their order, or none.
func (d *Drainer) counterStates(samples []sample) []CounterState {
	var states []CounterState
	for i, s := range samples {
		state := CounterState{Name: s.name, Learned: d.meters[i].learned()}
		if s.err != nil {
			state.Error = clip(s.err.Error())
		} else {
			state.InFlight = &s.InFlight
			if s.HasArrived {
				state.Arrived = &s.Arrived
			}
		}
		states = append(states, state)
	}
	return states
}

// registryStates tells where each registry stands. Callers hold d.mu.
func (d *Drainer) registryStates(now time.Time) []RegistryState {
	var states []RegistryState
	for _, k := range d.keepers {
		s := RegistryState{Name: k.Name, State: k.state(now), Error: k.lastErr}
		if l := d.leaving; l != nil {
			s.Failures = k.failures
			s.Withdrawn = since(l.began, k.withdrawnAt)
			s.Gone = since(l.began, k.goneAt)
		}
		states = append(states, s)
	}
	return states
}

func since(began, at time.Time) *float64 {
	if at.IsZero() {
		return nil
	}
	s := seconds(at.Sub(began))
	return &s
}

func (k *keeper) state(now time.Time) string {
	switch forgotten := k.forgottenAt(); {
	case k.want == inService && (k.told || !k.confirming.IsZero()):
		return "restoring"
	case k.want == inService:
		return "in service"
	case k.want == deregistered && isClosed(k.settled):
		return "deregistered"
	case k.want == deregistered:
		return "deregistering"
	case k.withdrawnAt.IsZero():
		return "withdrawing"
	case forgotten.IsZero():
		return "withdrawn"
	case now.Before(forgotten):
		return "gone"
	}
	return "forgotten"
}

// Sum is a number of durations and their sum.
type Sum struct {
	Count   uint64
	Seconds float64
}

func (s Sum) add(d time.Duration) Sum { return Sum{s.Count + 1, s.Seconds + d.Seconds()} }

// PortState is what is known of one of the app's ports.
type PortState struct {
	Port      int
	Listening bool
	Silent    bool   // nobody has ever listened on it, and people were told so
	Starts    uint64 // how often somebody was seen to begin to listen
}

// CallCount counts the calls to a registry.
type CallCount struct{ Calls, Failures uint64 }

// Totals counts since the process began.
type Totals struct {
	Phase      Phase                           // now
	Drains     map[Outcome]Sum                 // that ended so
	Seconds    map[Phase]time.Duration         // spent in each phase
	Registries map[string]map[string]CallCount // calls, by registry and call
	Counters   []CounterState
	Errors     map[string]uint64 // readings that failed, by counter
	Ports      []PortState       // the app's ports; empty while nobody can say who listens
	Budget     time.Duration     // the longest that a drain may take
	Needed     time.Duration     // what NeededBudget says
	since      time.Time         // when the pod last began to serve
}

func newTotals() Totals {
	return Totals{Drains: map[Outcome]Sum{}, Seconds: map[Phase]time.Duration{}, since: time.Now()}
}

// end books a drain that has ended.
func (t *Totals) end(l *leaving, outcome Outcome, took time.Duration) {
	t.Drains[outcome] = t.Drains[outcome].add(took)
	for phase, waited := range l.waited {
		t.Seconds[phase] += waited
	}
}

// Totals counts since the process began, for metrics. It reads the counters as
// Status does.
func (d *Drainer) Totals(ctx context.Context) Totals {
	status := d.Status(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	t := newTotals()
	t.Phase, t.Counters = status.Phase, status.Counters
	t.Budget = d.cfg.Budget()
	t.Needed, _ = d.cfg.NeededBudget()
	for outcome, sum := range d.totals.Drains {
		t.Drains[outcome] = sum
	}
	for phase, spent := range d.totals.Seconds {
		t.Seconds[phase] = spent
	}
	now := time.Now()
	if l := d.leaving; l == nil {
		t.Seconds[Serving] += now.Sub(d.totals.since)
	} else {
		if l.outcome == "" {
			for phase, waited := range l.waited {
				t.Seconds[phase] += waited
			}
		}
		t.Seconds[l.phase] += now.Sub(l.since)
	}
	t.Errors = map[string]uint64{}
	for _, m := range d.meters {
		t.Errors[m.Name] = m.failures
	}
	if d.app.known {
		for _, p := range d.app.ports {
			t.Ports = append(t.Ports, PortState{Port: p.port, Listening: p.listen, Silent: d.silentTold && p.last == nil, Starts: p.starts})
		}
	}
	t.Registries = map[string]map[string]CallCount{}
	for _, k := range d.keepers {
		calls := map[string]CallCount{}
		for op, count := range k.calls {
			calls[op] = *count
		}
		t.Registries[k.Name] = calls
	}
	return t
}
