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
	budgetEnd time.Time
	graceEnd  time.Time
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
}

// newDrainRun returns a drain that begins now.
func newDrainRun(cause Cause, cfg *Config, now time.Time) *drainRun {
	return &drainRun{
		cause:      cause,
		onRequest:  cause == CauseCall,
		final:      cause == CauseSignal,
		began:      now,
		budgetEnd:  now.Add(cfg.Budget()),
		graceEnd:   now.Add(cfg.GracePeriod),
		changed:    make(chan struct{}, 1),
		over:       make(chan struct{}),
		phase:      Withdrawing,
		since:      now,
		waited:     map[Phase]time.Duration{},
		timeline:   &timeline{began: now},
		unreadable: map[string]bool{},
	}
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
	return fmt.Sprintf("%s; %s of budget left", sentence(r.present, now), short(max(0, r.budgetEnd.Sub(now))))
}

// stoppedLate reports whether a signal at the time at came so long after the last
// hook that it is not a classic sidecar's, which comes with the hook.
func (r *drainRun) stoppedLate(at time.Time) bool {
	return r.hooked && at.Sub(r.hookAt) >= shortestGrace
}
