package eureka

import (
	"context"
	"sync/atomic"
	"time"
)

// How late an instance can be registered again after it was cancelled: by the
// app's last request, and by a server that replicates the app's last heartbeat.
// A server delays what it replicates by 500 ms. That happens twice here: for
// the heartbeat, and for the registration if the other server does not know the
// instance (PeerEurekaNode.heartbeat and MAX_BATCHING_DELAY_MS in eureka-core).
const (
	lateRegistration = 500 * time.Millisecond
	lateReplication  = 1250 * time.Millisecond
)

// cancelsFor limits for how long an instance that comes back is cancelled.
const cancelsFor = 10 * time.Second

// Deregister cancels the instance at every peer, and twice more a moment later.
// When the app ends, Netflix' client sends DOWN, which is a registration,
// concurrently with its own cancellation (spring-cloud-netflix#1543). A busy
// server may process the registration last, after the app has gone. And a
// server that has just received a heartbeat of the app registers the instance
// again with peers that have forgotten it. The instance would stay until its
// lease ends, or forever if the server is in self-preservation mode.
//
// An instance that has come back is cancelled, and looked for again afterwards.
// If the sidecar has registered it, the time of its last request is known, and
// slow servers get time to replicate that request. Work that does not fit
// before ctx's deadline is skipped: an instance that was cancelled counts as
// deregistered.
func (r *Registry) Deregister(ctx context.Context) error {
	if _, err := r.cancel(ctx); err != nil {
		return err
	}
	cancelled := time.Now()
	until := later(cancelled.Add(lateReplication), r.toldOfOurs())
	due := cancelled.Add(lateRegistration)
	for {
		if deadline, ok := ctx.Deadline(); ok && !deadline.After(due) {
			return nil
		}
		again := time.NewTimer(time.Until(due))
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil
		}
		looked := time.Now()
		back, err := r.cancel(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // this query goes beyond what the caller needs
		}
		switch now := time.Now(); {
		case err != nil:
			return err
		case back:
			until = earlier(later(until, now.Add(lateReplication)), cancelled.Add(cancelsFor))
		}
		if !looked.Before(until) {
			return nil
		}
		due = earlier(due.Add(lateReplication-lateRegistration), until)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// toldOfOurs returns when servers have replicated the sidecar's last request to
// register the app: first a heartbeat, and then a registration.
func (r *Registry) toldOfOurs() time.Time {
	if r.registrant == nil {
		return time.Time{}
	}
	// An earlier process of the pod may have sent something right before this one.
	return later(r.registrant.lastSaid(), r.began).Add(2 * toldWithin)
}

// cancel cancels the instance, and reports whether any peer held it.
func (r *Registry) cancel(ctx context.Context) (held bool, err error) {
	var anywhere atomic.Bool
	err = r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, false, func(n name) error {
			if err := p.cancel(ctx, n); err != nil {
				return err
			}
			anywhere.Store(true)
			return r.rightNamesakes(ctx, p, n)
		})
	})
	return anywhere.Load(), err
}
