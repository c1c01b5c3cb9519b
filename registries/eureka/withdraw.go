package eureka

import (
	"context"
	"fmt"
	"time"
)

// progress is the progress of the withdrawal of one instance at one peer.
type progress struct {
	written bool // the override was sent on the basis of what was known from before
	checked bool // the effect of the override on the instance was seen
}

// Withdraw overrides the instance's status at every peer. It returns nil when
// each peer has done so, does not know the instance, or is down (see the
// package comment). If the instance is not registered, there is nothing to
// withdraw.
//
// If the instance is known from before, the override is the first request, and
// its effect is read afterwards. A call that fails or is cut off is continued
// by the next one.
//
// If it is called again because the pod is still listed, it also makes servers
// discard the outdated answers that they keep, see the package comment.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	if !r.withdrawn {
		r.withdrawn = true
		r.views = nil
	}
	clear(r.overrideInDoubt) // Restore removes any override that it finds
	r.mu.Unlock()
	return r.atPeers(ctx, r.withdrawAt)
}

func (r *Registry) withdrawAt(ctx context.Context, p *peer) error {
	v := r.view(p)
	v.calls.Lock()
	defer v.calls.Unlock()
	first, err := r.withdrawNames(ctx, p, v, r.names())
	if err != nil {
		return err
	}
	// Then look for unknown names, once per drain. Names that appear later show
	// in the answers that Withdrawn reads.
	var second bool
	if !v.lookedUp && (r.id == "" || r.app == "") {
		known := r.names()
		found, err := r.lookUpAll(ctx, p)
		if err != nil && (ctx.Err() != nil || len(found)+len(known) == 0) {
			return err
		}
		v.lookedUp = err == nil // if a name is known, a failed look-up does not matter
		if second, err = r.withdrawNames(ctx, p, v, without(r.names(), known)); err != nil {
			return err
		}
	}
	if first || second || v.verified {
		return nil
	}
	if err := p.check(ctx); err != nil {
		return err
	}
	v.verified = true
	return nil
}

// withdrawNames withdraws each of names at p, and reports whether p knows any.
func (r *Registry) withdrawNames(ctx context.Context, p *peer, v *view, names []name) (found bool, err error) {
	for _, n := range names {
		switch err := r.withdrawOne(ctx, p, v, n); {
		case isNotFound(err):
		case err != nil:
			return found, fmt.Errorf("%w (%s)", err, n)
		default:
			found = true
		}
	}
	return found, nil
}

func (r *Registry) withdrawOne(ctx context.Context, p *peer, v *view, n name) error {
	done := v.progress(n)
	before, known := r.lastBefore(n)
	switch {
	case !done.written && !done.checked && known && before.Status == up:
		if err := p.override(ctx, n, r.status); err != nil {
			return err
		}
		done.written = true
		v.changed()
		if err := r.spareNamesakes(ctx, p, n); err != nil {
			return err
		}
	case done.checked && v.nothingToDo(n):
		return nil
	}
	i, err := p.instance(ctx, n)
	if err != nil {
		return err
	}
	r.locate()
	v.holds(n, i)
	steps := overrides(i.instance, r.status)
	switch {
	case r.isExempt(p, n) && i.Status == outOfService && !i.overridden():
		steps = nil
	case len(r.namesakesOf(n)) > 0:
		// A status without an override lasts only if it is OUT_OF_SERVICE,
		// whatever the app itself reports.
		steps = toExempt(i.instance)
	case done.written && !done.checked && i.Dirty != before.Dirty && i.Status == i.Overridden && string(i.Status) == r.status:
		// The app has registered again since the instance was last seen, and
		// the override hides the new status. It may not have been UP.
		steps = []string{other(r.status)}
	case done.checked && v.keepsOutdated(i):
		steps = []string{other(string(i.Status)), string(i.Status)}
	}
	for _, status := range steps {
		if err := p.override(ctx, n, status); err != nil {
			return err
		}
		v.changed()
	}
	if len(steps) > 0 {
		if err := r.spareNamesakes(ctx, p, n); err != nil {
			return err
		}
	}
	done.checked = true
	return nil
}

// overrides returns the statuses to set, one after the other, so that an
// override keeps i out of service. For an instance that is UP this is status.
// An instance whose app has reported another status gets the other status, as a
// mark. If that already is its status, two overrides are set, because the
// second must differ from the first. The instance is never UP in between.
func overrides(i instance, status string) []string {
	switch mark := other(status); {
	case i.Status == up:
		return []string{status}
	case i.overridden():
		return nil
	case string(i.Status) == mark:
		return []string{status, mark}
	default:
		return []string{mark}
	}
}

// toExempt returns the statuses to set so that the override can then be removed
// from i and i stays OUT_OF_SERVICE.
func toExempt(i instance) []string {
	if i.Status == outOfService && !i.overridden() {
		return []string{down}
	}
	return []string{outOfService}
}

// other returns the other one of the two statuses that a withdrawn instance can
// have.
func other(status string) string {
	if status == down {
		return outOfService
	}
	return down
}

// spareNamesakes removes the override of n again and keeps the status, if other
// applications have instances with the same id. Servers store overrides by id
// alone, and would take those instances out of service with their next
// heartbeat. A server keeps OUT_OF_SERVICE without an override too, until the
// app itself reports DOWN and then UP (LeaseExistsRule in eureka-core).
// Withdrawn notices that.
func (r *Registry) spareNamesakes(ctx context.Context, p *peer, n name) error {
	if len(r.namesakesOf(n)) == 0 {
		return nil
	}
	if err := p.removeOverride(ctx, n, outOfService); err != nil {
		return err
	}
	r.setExempt(p, n, true)
	return nil
}

// keepsOutdated reports whether the server still has an answer that lists i and
// that it should have discarded by now: it has renewed the others since, or has
// had enough time.
func (v *view) keepsOutdated(i seen) bool {
	if !i.overridden() || i.Status != i.Overridden || i.age <= rewriteAfter || !v.goneSince.IsZero() {
		return false
	}
	return v.outdated || !v.turnedAt.IsZero() || i.age > ServerCache+rewriteAfter
}

// nothingToDo reports whether n was seen to be withdrawn a moment ago, and the
// answers to clients are not overdue.
func (v *view) nothingToDo(n name) bool {
	i, ok := v.held[n]
	if !ok || i.available() || v.keepsOutdated(seen{i.instance, i.age + time.Since(v.heldAt)}) {
		return false
	}
	return time.Since(v.heldAt) < v.ownPause()
}
