package drain

import (
	"math"
	"time"
)

// Unbounded is the budget of a drain that may take as long as it takes.
const Unbounded time.Duration = math.MaxInt64

// A trigger begins a drain or joins one: a hook, a signal or a call.
type trigger struct {
	cause  Cause
	at     time.Time // when it came
	budget time.Duration
}

// byKubelet reports whether the grace period counts from the trigger on.
func (t trigger) byKubelet() bool { return t.cause != CauseCall }

// end is when the drain must have ended; zero when it may take as long as it takes.
func (t trigger) end() time.Time {
	if t.budget == Unbounded {
		return time.Time{}
	}
	return t.at.Add(t.budget)
}

// budgetText is a budget as people read it.
func budgetText(b time.Duration) string {
	if b == Unbounded {
		return "as long as it takes"
	}
	return b.Round(time.Millisecond).String()
}
