package eureka

import (
	"context"
	"time"
)

// Restore removes the override at every peer. The instance is UP at once if
// that is what it was when it was withdrawn, as far as can be told; otherwise
// it has the status that the app itself has from the app's next heartbeat on.
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
				// Withdrawn without an override, for the sake of its namesakes.
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

// removeOverride removes the override that i has at p, and sets the status, see
// peer.removeOverride.
//
// A registration of the app that p is carrying out at the same time may have
// taken the override over just before, and keeps the look of it: then p knows
// nothing of an override that could be removed, and needs one set first.
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

// setAnew sets a status that stays although there is no override to be removed:
// by an override, and its removal. The present status is needed because servers
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

// ownStatus is UP where the app says so behind the override, as far as can be
// told, and otherwise empty. A status that differs from the override is the
// app's own word, DOWN or STARTING. An override that is not the configured one
// is the mark of an instance that was not UP. Behind DOWN, an app that has
// registered since can have said either.
func (r *Registry) ownStatus(i instance) string {
	if i.Status == i.Overridden && string(i.Overridden) == r.status && (r.status != down || i.Action == "MODIFIED") {
		return up
	}
	return ""
}
