package drain

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// When a registry is asked whether it lists the pod, where readiness waits for
// that: the pauses are a part of the time that was waited already, so that a pod
// is found ready late by that part at most, and a fleet that starts at once asks
// less and less.
const (
	listingPauseDivisor = 8
	minListingPause     = 200 * time.Millisecond
	maxListingPause     = 5 * time.Second
	// listingChangeGap is the minimum time between two questions to a registry
	// that reports changes: where many pods start at once, each of them changes
	// what all ask for.
	listingChangeGap = 500 * time.Millisecond
	// What follows holds when readiness waits no longer.
	minLateListingPause = 30 * time.Second
	maxLateListingPause = 5 * time.Minute
)

// listing is whether the registry has been seen to list the pod, where readiness
// waits for that (Config.ReadyWhenListed). What was seen holds for the life of
// the process: the app that is restarted, a drain that is taken back, and a
// registry that loses the instance take no readiness away.
type listing struct {
	awaited bool      // readiness waits, or has waited, for it
	seenAt  time.Time // zero: not yet
	gaveUp  bool      // it was not seen in time: readiness waits no longer
	why     string    // what was missing when it was asked last; empty: it was not asked
	from    time.Time // when the app was last seen to start, or the wait began
	askedAt time.Time
	askAt   time.Time
}

// open reports whether it has not been seen yet.
func (l *listing) open() bool { return l.awaited && l.seenAt.IsZero() }

// holds reports whether readiness waits for it.
func (l *listing) holds() bool { return l.open() && !l.gaveUp }

// pause is how long to wait before the next question.
func (l *listing) pause(now time.Time) time.Duration {
	least, most := minListingPause, maxListingPause
	if l.gaveUp {
		least, most = minLateListingPause, maxLateListingPause
	}
	p := min(max(now.Sub(l.from)/listingPauseDivisor, least), most)
	return p - time.Duration(rand.Int64N(int64(p)/5+1)) //nolint:gosec // spreads load, guards nothing
}

// mayBeListedLocked reports whether an answer that the registry lists the
// instance is worth having: not one that may be from before a withdrawal that
// was taken back.
func (r *registration) mayBeListedLocked(now time.Time) bool {
	return !r.recovery.underWay() || now.Sub(r.recovery.restoredAt) >= r.ServerCache && !now.Before(r.withdrawals.until.Add(r.ServerCache))
}

// nextListingLocked returns when the registry is asked whether it lists the pod;
// false when it is not.
func (r *registration) nextListingLocked(now time.Time) (time.Time, bool) {
	switch {
	case !r.listing.open():
		return time.Time{}, false
	case r.mayBeListedLocked(now):
		return r.listing.askAt, true
	}
	return later(r.recovery.restoredAt, r.withdrawals.until).Add(r.ServerCache), true
}

// askListed asks whether the registry lists the pod.
func (r *registration) askListed(ctx context.Context) (a answer, err error) {
	if l, ok := r.Registry.(Lister); ok {
		a.yes, a.text, err = l.Listed(ctx)
		return a, err
	}
	gone, err := r.Registry.Withdrawn(ctx)
	a.yes, a.text = !gone && err == nil, "it does not list the pod"
	return a, err
}

// listedDoneLocked records whether the registry lists the pod.
func (r *registration) listedDoneLocked(a answer, err error, now time.Time) {
	l := &r.listing
	var why string
	switch {
	case err != nil:
		why = clip(err.Error())
	case a.yes:
		l.seenAt, l.why = now, ""
		slog.Info("registry: lists the pod", "registry", r.Name)
		r.listedLocked()
		return
	default:
		why = clip(a.text)
	}
	if why == "" {
		why = "it does not list the pod"
	}
	if why != l.why {
		l.why = why
		slog.Debug("registry: does not list the pod yet", "registry", r.Name, "reason", why)
	}
	l.askAt = now.Add(l.pause(now))
	if r.changed {
		r.listingChangedLocked()
	}
}

// listingChangedLocked records that the registry has reported a change.
func (r *registration) listingChangedLocked() {
	l := &r.listing
	soon := l.askedAt.Add(listingChangeGap)
	if r.target != inService || !l.holds() || !soon.Before(l.askAt) {
		return
	}
	l.askAt = soon
	notify(r.worker.changed)
}
