package drain

import (
	"maps"
	"time"
)

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
	Silent    bool   // nobody has ever listened on it, and there was a warning
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
	Found      map[string]bool                 // registries that say whether they have ever held the pod's instance, once they were searched; where the sidecar registers the app, whether it has, while that is ready and the pod serves
	Listed     map[string]bool                 // registries that readiness waits for, or has waited for: whether they have been seen to list the pod
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
func (t *Totals) end(run *drainRun, outcome Outcome, took time.Duration) {
	t.Drains[outcome] = t.Drains[outcome].add(took)
	for phase, waited := range run.waited {
		t.Seconds[phase] += waited
	}
}

// totalsLocked counts since the process began, with these readings of the
// counters.
func (d *Drainer) totalsLocked(readings []reading, now time.Time) Totals {
	t := newTotals()
	t.Phase, t.Counters = Serving, d.counterStates(readings)
	t.Budget = d.cfg.Budget()
	t.Needed, _ = d.cfg.NeededBudget()
	maps.Copy(t.Drains, d.totals.Drains)
	maps.Copy(t.Seconds, d.totals.Seconds)
	if run := d.run; run == nil {
		t.Seconds[Serving] += now.Sub(d.totals.since)
	} else {
		t.Phase = run.phase
		if run.outcome == "" {
			for phase, waited := range run.waited {
				t.Seconds[phase] += waited
			}
		}
		t.Seconds[run.phase] += now.Sub(run.since)
	}
	t.Errors = map[string]uint64{}
	for _, p := range d.pollers.all {
		t.Errors[p.Name] = p.failures
	}
	if d.app.known {
		for _, p := range d.app.ports {
			t.Ports = append(t.Ports, PortState{Port: p.port, Listening: p.listen, Silent: d.app.silentWarned && p.last == nil, Starts: p.starts})
		}
	}
	t.Registries, t.Found, t.Listed = map[string]map[string]CallCount{}, map[string]bool{}, map[string]bool{}
	for _, r := range d.registrations {
		t.Registries[r.Name] = r.worker.callsLocked()
		if r.listing.awaited {
			t.Listed[r.Name] = !r.listing.open()
		}
		if found, known := r.foundLocked(); known {
			t.Found[r.Name] = found
		}
	}
	return t
}
