package drain

import (
	"log/slog"
	"time"
)

const (
	// findFor is how long an instance that was found is looked up again and
	// again: what was there first may be an earlier pod's registration, which
	// the app's own replaces when it has started.
	findFor = 5 * time.Minute
	// findAgainAfter is when, the first time; then the wait doubles.
	findAgainAfter = 30 * time.Second
	// findOften is how long we poll for the instance after the app starts
	// listening. It may reuse an earlier pod's id, whose leftover withdrawal
	// keeps it out of service until we find and clear it.
	findOften = 30 * time.Second
	// recoverFor is how long the registry is asked often whether it lists an
	// instance again that was put back; after that, now and then.
	recoverFor = 5 * time.Minute
	// restoreAgainEvery is how often Restore is called again for an instance that
	// the registry does not list, and how often "now and then" is.
	restoreAgainEvery = 30 * time.Second
)

// lookup is when an instance in service is looked up, where the registry can
// (Finder). The zero value is due.
type lookup struct {
	found     string    // what Find last found
	foundAt   time.Time // when it first did; zero: not yet
	dueAt     time.Time // when Find is due again
	tries     int       // calls in a row after each of which another is due soon
	startedAt time.Time // when the app was seen to start, or a drain was taken back; zero: not yet
}

// over reports whether the instance was found long ago.
func (l *lookup) over(now time.Time) bool {
	return !l.foundAt.IsZero() && now.Sub(l.foundAt) > findFor
}

// appStartedLocked makes the next lookup due at once, and the ones after it soon.
func (r *registration) appStartedLocked() {
	r.lookup = lookup{found: r.lookup.found, startedAt: time.Now()}
	r.listing.from, r.listing.askAt = time.Now(), time.Time{}
	notify(r.worker.changed)
}

// findDoneLocked sets when the instance is looked up again.
func (r *registration) findDoneLocked(what string, err error, now time.Time) {
	l := &r.lookup
	l.tries++
	// From a second up to half a minute: an app may take its time to register.
	l.dueAt = now.Add(min(time.Duration(l.tries)*time.Second, 30*time.Second))
	if err != nil {
		r.absentWhileServingLocked(now)
		return
	}
	if l.foundAt.IsZero() {
		l.foundAt = now
	}
	if what != l.found {
		l.found = what
		slog.Info("registry: instance found", "registry", r.Name, "instance", what)
	}
	if now.Sub(l.startedAt) >= findOften {
		l.tries = 0
		l.dueAt = now.Add(max(findAgainAfter, now.Sub(l.foundAt)))
	}
}

// recovery is what is seen of an instance that was put back, until the registry
// lists it. The zero value is none.
type recovery struct {
	began      time.Time // when the instance was put back first
	restoredAt time.Time // the last Restore that succeeded
	askAt      time.Time // when the registry is asked again
	warned     bool      // the log says that it takes long
}

func (r *recovery) underWay() bool { return !r.began.IsZero() }

func (r *registration) restoreDoneLocked(err error, now time.Time) {
	if err != nil {
		r.dueAt = now.Add(r.retry.wait())
		return
	}
	r.retry.reset()
	r.mayBeWithdrawn = false
	switch {
	case !r.unlisted:
		if !r.recovery.underWay() {
			r.recovery.began = now
		}
		r.recovery.restoredAt, r.recovery.askAt = now, now
	case now.Before(r.withdrawals.until):
		// Nobody can be asked whether a Withdraw takes effect yet.
		r.mayBeWithdrawn, r.dueAt = true, r.withdrawals.until
	}
	if !isClosed(r.settled) {
		close(r.settled)
		if !r.unknownLocked() {
			slog.Info("registry: put back into service", "registry", r.Name)
		}
	}
}

// recoveryAskDoneLocked records whether the registry lists the instance again. An
// answer from before its cache has turned over proves nothing: it may be older
// than the withdrawal. Neither does one while a withdrawal may yet take effect.
func (r *registration) recoveryAskDoneLocked(gone bool, err error, now time.Time) {
	v := &r.recovery
	v.askAt = now.Add(restoreAgainEvery)
	switch {
	case err == nil && !gone && (now.Sub(v.restoredAt) < r.ServerCache || now.Before(r.withdrawals.until.Add(r.ServerCache))):
		v.askAt = now.Add(watchEvery)
	case err == nil && !gone:
		*v = recovery{}
		slog.Info("registry: lists the pod again", "registry", r.Name)
	case err == nil && now.Sub(v.restoredAt) >= restoreAgainEvery:
		r.mayBeWithdrawn = true // so Restore is called again
	case now.Sub(v.began) < recoverFor:
		v.askAt = now.Add(watchEvery)
	case !v.warned:
		v.warned = true
		slog.Warn("registry: still does not list the pod: has its app registered?", "registry", r.Name, "waited", recoverFor.String())
	}
}
