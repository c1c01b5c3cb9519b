package eureka

import (
	"context"
	"fmt"
	"time"
)

// progress is how far the withdrawal of one instance at one peer has come.
type progress struct {
	written bool // the override was sent on what was known from before
	checked bool // and what it has made of the instance was seen
}

// Withdraw overrides the instance's status at every peer. It returns nil when
// all peers have done so, or do not know the instance, or are down (see the
// package's comment); an instance that is not registered has nothing to be
// withdrawn.
//
// Where the instance is known from before, the override is the first request;
// what it has made of the instance is read after it. A call that fails, or is
// cut off, is gone on with by the next one.
//
// Called again, because clients are still told of the instance, it also makes
// servers throw away the answers that they keep, see the package's comment.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	if !r.withdrawn {
		r.withdrawn = true
		r.views = nil
	}
	clear(r.overrideInDoubt) // Restore removes whatever override there is
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
	// Then look for names that are not known yet, once for each drain. Later
	// ones show in the answers that Withdrawn reads.
	var second bool
	if !v.lookedUp && (r.id == "" || r.app == "") {
		known := r.names()
		found, err := r.lookUpAll(ctx, p)
		if err != nil && (ctx.Err() != nil || len(found)+len(known) == 0) {
			return err
		}
		v.lookedUp = err == nil // with a name that is known, a look-up that failed is no loss
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
		// Whatever the app says itself, a status without an override has to be
		// this one to last.
		steps = toExempt(i.instance)
	case done.written && !done.checked && i.Dirty != before.Dirty && i.Status == i.Overridden && string(i.Status) == r.status:
		// The app has said something since it was last seen, which the override
		// hides. It may not have been UP.
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

// overrides are the statuses to set, one after the other, so that an override
// keeps i out of service: status where i is UP. One that is not UP by its own
// word gets the other status, as a mark; where it has that by itself, the first
// of two makes the second differ, and never is it UP in between.
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

// toExempt are the statuses to set, so that an override can be removed from i that
// leaves it OUT_OF_SERVICE.
func toExempt(i instance) []string {
	if i.Status == outOfService && !i.overridden() {
		return []string{down}
	}
	return []string{outOfService}
}

// other is the other one of the two statuses that a withdrawn instance has.
func other(status string) string {
	if status == down {
		return outOfService
	}
	return down
}

// spareNamesakes removes the override of n again and leaves the status as it is,
// where other applications have instances of the same id: servers keep overrides
// by id alone, and would take those out of service with their next heartbeat. A
// server holds on to OUT_OF_SERVICE without an override too, until the app
// itself says DOWN and then UP (LeaseExistsRule in eureka-core), which Withdrawn
// sees.
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

// keepsOutdated reports whether the server should have thrown an answer away by
// now that still lists i: it has renewed all others since, or has had the time.
func (v *view) keepsOutdated(i seen) bool {
	if !i.overridden() || i.Status != i.Overridden || i.age <= rewriteAfter || !v.goneSince.IsZero() {
		return false
	}
	return v.outdated || !v.turnedAt.IsZero() || i.age > ServerCache+rewriteAfter
}

// nothingToDo reports whether n was seen to be withdrawn a moment ago, and the
// answers to clients are not late.
func (v *view) nothingToDo(n name) bool {
	i, ok := v.held[n]
	if !ok || i.available() || v.keepsOutdated(seen{i.instance, i.age + time.Since(v.heldAt)}) {
		return false
	}
	return time.Since(v.heldAt) < v.ownPause()
}
