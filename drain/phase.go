package drain

// Phase is where a drain stands.
type Phase string

// The phases. A drain goes from Draining back to Propagating when a registry
// lists the instance again.
const (
	Serving     Phase = "serving"     // no drain
	Withdrawing Phase = "withdrawing" // registries are being called for the first time
	Propagating Phase = "propagating" // clients may still discover the pod or hold it in a cache
	Draining    Phase = "draining"    // waiting for the work in flight
	Drained     Phase = "drained"     // all was waited for; the outcome says whether the pod was withdrawn
	Expired     Phase = "expired"     // the budget or the app ended first, or the drain was cut short
)

// Phases lists every phase, in the order in which a drain goes through them.
func Phases() []Phase {
	return []Phase{Serving, Withdrawing, Propagating, Draining, Drained, Expired}
}

// Outcome is how a drain ended.
type Outcome string

// The outcomes.
const (
	OutcomeDrained   Outcome = "drained"    // nothing is left, and nobody will come
	OutcomeExpired   Outcome = "expired"    // the budget or the app's end came first
	OutcomeTakenBack Outcome = "taken_back" // the pod serves again
	OutcomeCutShort  Outcome = "cut_short"  // SIGINT or the process's end ended it
	// OutcomeNotFound means that nothing is left, and clients may still come: a
	// registry was searched, and the pod's instance was never found there.
	OutcomeNotFound Outcome = "instance_not_found"
)

// Outcomes lists every outcome.
func Outcomes() []Outcome {
	return []Outcome{OutcomeDrained, OutcomeExpired, OutcomeTakenBack, OutcomeCutShort, OutcomeNotFound}
}

// Cause says what began a drain.
type Cause string

// The causes of a drain.
const (
	CauseHook   Cause = "hook"    // the kubelet's preStop hook
	CauseSignal Cause = "signal"  // SIGTERM or SIGINT
	CauseCall   Cause = "request" // a call of the API
)
