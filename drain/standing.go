package drain

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// unreadableAfter is how many readings in a row must fail in a drain before that
// is reported.
const unreadableAfter = 2

// standingLocked returns the phase that the registries and the time allow, what
// is waited for, and when time alone may change that.
func (v *driver) standingLocked(now time.Time) (phase Phase, present []waiting, until time.Time) {
	wait := func(what string) { present = append(present, waiting{what: what, text: what}) }
	waitUntil := func(t time.Time, what string) {
		present = append(present, waiting{what, what, t})
		if until.IsZero() || t.Before(until) {
			until = t
		}
	}
	phase = Draining
	for _, r := range v.registrations {
		switch forgotten := r.forgottenAtLocked(); {
		case !r.tried:
			phase = Withdrawing
			wait(r.Name + " to be told")
		case forgotten.IsZero() && r.withdrawnAt.IsZero():
			wait(r.Name + " to accept the withdrawal")
		case forgotten.IsZero():
			wait(r.Name + " to drop the pod from its answers")
		case now.Before(forgotten) && r.absentLocked():
			waitUntil(forgotten, "the pod's instance to appear in "+r.Name)
		case now.Before(forgotten):
			waitUntil(forgotten, r.Name+"'s clients to refresh")
		}
	}
	if endpoints := v.run.began.Add(v.cfg.EndpointsWait); now.Before(endpoints) {
		waitUntil(endpoints, "endpoints")
	}
	if len(present) > 0 && phase == Draining {
		phase = Propagating
	}
	return phase, present, until
}

// portWaitsLocked is the wait for an app that nobody has ever seen to listen,
// while somebody else in the pod does: its work, or that of an app on another
// port, may be in flight.
func (v *driver) portWaitsLocked() []waiting {
	ports := v.app.inDoubtLocked()
	if len(ports) == 0 {
		return nil
	}
	others := ""
	if len(v.app.others) > 0 {
		others = ", the pod listens on " + portList(v.app.others)
	}
	return []waiting{{
		what: "the app's port",
		text: fmt.Sprintf("somebody to listen on port %s of LASTCALL_APP_PORT, which nobody ever has%s", portList(ports), others),
	}}
}

// workWaitsLocked is what work is waited for, by the last readings.
func (v *driver) workWaitsLocked() []waiting {
	readings := v.run.last.readings
	sum, known := inFlight(readings)
	var unreadable, work []waiting
	var busy []string
	over := sum > v.cfg.Threshold
	for _, r := range readings {
		switch {
		case r.err != nil:
			what := r.name + " to be readable"
			unreadable = append(unreadable, waiting{what: what, text: fmt.Sprintf("%s (%s)", what, clip(r.err.Error()))})
		case r.InFlight > 0 && over:
			work = append(work, waiting{what: "requests in flight: " + r.name})
			busy = append(busy, fmt.Sprintf("%s %d", r.name, r.InFlight))
		}
	}
	present := slices.Concat(work, unreadable)
	switch {
	case over:
		requests := "requests"
		if sum == 1 {
			requests = "request"
		}
		present[0].text = fmt.Sprintf("%d %s: %s", sum, requests, strings.Join(busy, ", "))
	case !known && len(present) == 0:
		const overflow = "a sum of the counters that is too large to be true"
		present = append(present, waiting{what: overflow, text: overflow})
	case known:
		present = append(present, waiting{what: "quiet", text: fmt.Sprintf("%v of quiet", v.cfg.Quiet)})
	}
	return present
}
