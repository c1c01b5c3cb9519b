package drain

import (
	"errors"
	"log/slog"
	"time"
)

// registerWithin is how long an app may take to register before an Event says
// that its instance is not found. The log says so from the first search on.
const registerWithin = time.Minute

// presence is what is known of whether a registry has ever held the pod's
// instance. It holds for the life of the process, but for absentAt.
type presence struct {
	unknown  bool      // it was never found; always false for registries that cannot say (Locator)
	searched bool      // it was searched for: unknown is a fact
	why      string    // why the last Find has not found it
	emitted  bool      // there was an Event of that while the pod served
	absentAt time.Time // since when a search in this drain has not found it; zero: none has ended
}

// unknownLocked reports whether the instance was searched for and never found.
func (r *registration) unknownLocked() bool { return r.presence.unknown && r.presence.searched }

// foundLocked reports whether the registry has held the instance, and whether that is
// known. Where the sidecar registers the app, it is whether it has, while it should.
func (r *registration) foundLocked() (found, known bool) {
	if g := &r.registering; g.ours() {
		return g.registered, g.known && g.ready
	}
	_, says := r.Registry.(Locator)
	return !r.presence.unknown, says && (r.presence.searched || !r.presence.unknown)
}

// absentLocked reports whether a search in this drain has ended, and the
// instance was never found.
func (r *registration) absentLocked() bool {
	return r.presence.unknown && !r.presence.absentAt.IsZero()
}

// presenceLocked records what a call shows of the instance's presence. It reports
// whether the instance has appeared after it was searched for.
func (r *registration) presenceLocked(op string, a answer, err error) (appeared bool) {
	p := &r.presence
	switch {
	case !p.unknown || !a.says:
		return false
	case a.located:
		appeared = p.searched
		*p = presence{}
		if appeared && r.target == outOfService {
			r.journal.noteLocked("%s: the pod's instance has appeared; withdrawing it", r.Name)
			r.notifyDriverLocked()
		}
		return appeared
	case op == opFind && isNotFound(err):
		p.searched, p.why = true, clip(err.Error())
	case err == nil && (op == opWithdraw || op == opDeregister || op == opAsk && a.yes):
		p.searched = true
	}
	return false
}

// isNotFound reports whether a Find has searched the registry in vain.
func isNotFound(err error) bool {
	var notFound *NotFoundError
	return errors.As(err, &notFound)
}

// absentDoneLocked records that a search in a drain has not found the instance.
func (r *registration) absentDoneLocked(now time.Time) {
	if !r.presence.absentAt.IsZero() {
		return
	}
	r.presence.absentAt = now
	text := r.Name + ": the pod's instance was never found, so it cannot be withdrawn; it is searched for until the drain ends"
	if r.presence.why != "" {
		text += ": " + r.presence.why
	}
	slog.Warn("drain: " + text)
	r.journal.markLocked(text)
	r.journal.emitLocked(EventNotFound, "%s", text)
	r.notifyDriverLocked()
}

// absentWhileServingLocked emits that the instance is not found, once, when its
// app has had the time to register.
func (r *registration) absentWhileServingLocked(now time.Time) {
	p := &r.presence
	if p.emitted || !r.unknownLocked() || r.appMayRegisterLocked(now) {
		return
	}
	p.emitted = true
	r.journal.emitLocked(EventNotFound, "%s: the pod's instance is not found; a drain could not withdraw it: %s", r.Name, p.why)
}

// neverFoundLocked returns the names of the registries whose instance was searched for
// in this drain, and never found.
func neverFoundLocked(all []*registration) (names []string) {
	for _, r := range all {
		if r.absentLocked() {
			names = append(names, r.Name)
		}
	}
	return names
}
