package eureka

import (
	"context"
	"time"
)

// Restore removes the override at every peer. The instance is UP at once if it
// was UP when it was withdrawn, as far as that is known. Otherwise it gets the
// app's own status with the app's next heartbeat.
func (r *Registry) Restore(ctx context.Context) error {
	r.mu.Lock()
	r.withdrawn, r.views, r.listings = false, nil, nil
	r.mu.Unlock()
	return r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, false, func(n name) error {
			i, err := p.instance(ctx, n)
			switch {
			case err != nil:
				return err
			case i.overridden():
				err = r.removeOverride(ctx, p, n, r.ownWord(i.instance))
			case i.Status == outOfService && len(r.namesakesOf(n)) > 0:
				// It was withdrawn without an override, to spare its namesakes.
				own := ""
				if before, ok := r.lastBefore(n); ok && before.Status == up && before.Dirty == i.Dirty {
					own = up
				}
				err = r.setAnew(ctx, p, n, i.Status, own)
			}
			if err == nil {
				err = r.rightNamesakes(ctx, p, n)
			}
			if err == nil {
				r.setExempt(p, n, false)
			}
			return err
		})
	})
}

// removeOverride removes the override of n at p, and sets the status, see
// peer.removeOverride.
//
// If p is processing a registration of the app at the same time, the
// registration may have copied the override just before. The instance then
// still shows an override, but p has no record of it that could be removed. So
// one must be set first.
func (r *Registry) removeOverride(ctx context.Context, p *peer, n name, status string) error {
	r.mu.Lock()
	r.restoredAt = time.Now()
	r.mu.Unlock()
	if err := p.removeOverride(ctx, n, status); err != nil {
		return err
	}
	i, err := p.instance(ctx, n)
	switch {
	case err != nil:
		return err
	case !i.overridden():
		r.doubt(p, false)
		return nil
	}
	return r.setAnew(ctx, p, n, i.Status, status)
}

// setAnew sets a status that stays although there is no override to remove: it
// sets an override and removes it. It needs the present status, because servers
// record only an override that differs from it.
func (r *Registry) setAnew(ctx context.Context, p *peer, n name, present loose, status string) error {
	r.doubt(p, true)
	err := p.override(ctx, n, other(string(present)))
	if err == nil {
		err = p.removeOverride(ctx, n, status)
	}
	if err == nil {
		r.doubt(p, false)
	}
	return err
}

func (r *Registry) doubt(p *peer, doubt bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if doubt {
		r.overrideInDoubt[p] = true
	} else {
		delete(r.overrideInDoubt, p)
	}
}

// ownStatus returns UP if the app has reported UP behind the override, as far
// as that is known, and otherwise an empty string. A status that differs from
// the override is the app's own, DOWN or STARTING. An override other than the
// configured one marks an instance that was not UP. If the override is DOWN and
// the app has registered since, the app may have reported either.
func (r *Registry) ownStatus(i instance) string {
	if i.Status == i.Overridden && string(i.Overridden) == r.status && (r.status != down || i.Action == "MODIFIED") {
		return up
	}
	return ""
}
