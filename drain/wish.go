package drain

import (
	"math"
	"time"
)

// Unbounded is the budget of a drain that may take as long as it takes.
const Unbounded time.Duration = math.MaxInt64

// A wish is what somebody wants who asks for a drain.
type wish struct {
	cause  Cause
	at     time.Time // when it came
	budget time.Duration
}

// byKubelet reports whether the grace period counts from the wish on.
func (w wish) byKubelet() bool { return w.cause != CauseCall }

// end is when the drain must have ended; zero when it may take as long as it takes.
func (w wish) end() time.Time {
	if w.budget == Unbounded {
		return time.Time{}
	}
	return w.at.Add(w.budget)
}

// budgetText is a budget as people read it.
func budgetText(b time.Duration) string {
	if b == Unbounded {
		return "as long as it takes"
	}
	return b.Round(time.Millisecond).String()
}
