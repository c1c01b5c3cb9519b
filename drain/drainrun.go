package drain

import (
	"context"
	"fmt"
	"time"
)

// A drainRun is one drain, from its beginning until another takes its place or
// it is taken back. The Drainer's lock guards it.
type drainRun struct {
	cause     Cause
	began     time.Time
	budgetEnd time.Time          // zero: it may take as long as it takes
	graceEnd  time.Time          // of the pod, once the kubelet is heard of
	cancel    context.CancelFunc // stops the driver
	changed   chan struct{}      // something has changed that the driver should look at
	over      chan struct{}      // closed when the drain has ended

	phase    Phase
	since    time.Time
	waited   map[Phase]time.Duration
	timeline *timeline
	present  []waiting // what the drain waits for, or was waiting for at its end
	waits    waits     // how long it has waited, and for what

	last snapshot // of the counters

	// What they were when the app was last seen to listen.
	readingsAlive []reading
	presentAlive  []waiting

	onRequest    bool            // somebody has asked for it by a call
	graceRuns    bool            // a hook or SIGTERM has begun or joined it: the grace period counts from then
	final        bool            // SIGTERM has begun or joined it: no other follows
	hooked       bool            // a preStop hook has asked for it
	hooks        int             // preStop callers that wait now
	hookAt       time.Time       // when the last hook was called
	startedAt    time.Time       // when a postStart hook was called while a preStop hook waited
	appGone      bool            // the app was seen not to listen, at the last look
	silentWarned bool            // there was a warning of ports that nobody listens on
	unreadable   map[string]bool // counters of which there was an event that they cannot be read

	outcome       Outcome // empty while under way
	why           string  // why it ended so, where the outcome does not say
	worksUnheard  bool    // work was seen on open connections of an app that does not listen
	appEndedFirst bool    // the app's end has come before the drain's
	report        Report
	confirming    *confirmation // under way; nil: none is
}

// newDrainRun returns a drain that begins with a trigger, which may have waited for a
// confirmation until now.
func newDrainRun(t trigger, cfg *Config, now time.Time) *drainRun {
	return &drainRun{
		cause:      t.cause,
		onRequest:  t.cause == CauseCall,
		graceRuns:  t.byKubelet(),
		final:      t.cause == CauseSignal,
		began:      t.at,
		budgetEnd:  t.end(),
		graceEnd:   t.at.Add(cfg.GracePeriod),
		changed:    make(chan struct{}, 1),
		over:       make(chan struct{}),
		phase:      Withdrawing,
		since:      now,
		waited:     map[Phase]time.Duration{},
		timeline:   &timeline{began: t.at},
		unreadable: map[string]bool{},
	}
}

// keepUntil is until when the pod is kept out of its registries. One that
// somebody has asked for by a call stays out until that is taken back.
func (r *drainRun) keepUntil() time.Time {
	if r.onRequest {
		return time.Time{}
	}
	return r.budgetEnd
}

// enter moves the drain to a phase and books the time in the one before.
func (r *drainRun) enter(p Phase, now time.Time) {
	r.waited[r.phase] += now.Sub(r.since)
	r.phase, r.since = p, now
}

// end ends the drain, and returns one line about it for the log.
func (r *drainRun) end(outcome Outcome, now time.Time) (text string) {
	r.waits.become(nil, now)
	r.outcome = outcome
	phase := Expired
	switch outcome {
	case OutcomeDrained, OutcomeNotFound:
		phase, r.present = Drained, nil
	case OutcomeTakenBack:
		phase, r.present = Serving, nil
	case OutcomeExpired, OutcomeCutShort:
	}
	r.enter(phase, now)
	text = fmt.Sprintf("%s after %v", outcome, now.Sub(r.began).Round(time.Millisecond))
	if waiting := sentence(r.present, now); waiting != "" {
		text += ", " + waiting
	}
	if r.why != "" {
		r.timeline.mark(r.why)
	}
	r.timeline.mark(text)
	if r.why != "" {
		text += ": " + r.why
	}
	return text
}

// waitingFor says what the drain waits for, and how long it still can.
func (r *drainRun) waitingFor(now time.Time) string {
	if r.budgetEnd.IsZero() {
		return sentence(r.present, now) + "; for as long as it takes"
	}
	return fmt.Sprintf("%s; %s of budget left", sentence(r.present, now), short(max(0, r.budgetEnd.Sub(now))))
}

// budget is the longest that the drain may take; Unbounded: as long as it takes.
func (r *drainRun) budget() time.Duration {
	if r.budgetEnd.IsZero() {
		return Unbounded
	}
	return r.budgetEnd.Sub(r.began)
}

// stoppedLate reports whether a signal at the time at came so long after the last
// hook that it is not a classic sidecar's, which comes with the hook.
func (r *drainRun) stoppedLate(at time.Time) bool {
	return r.hooked && at.Sub(r.hookAt) >= shortestGrace
}
