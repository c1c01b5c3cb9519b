package eureka

import (
	"context"
	"sync/atomic"
	"time"
)

// How late an instance may be registered that is cancelled: by what the app has
// sent last, and by one server that tells another of the app's last heartbeat.
// A server holds what it tells others back for 500ms, here twice: the heartbeat,
// and the registration when the other one does not know the instance
// (PeerEurekaNode.heartbeat and MAX_BATCHING_DELAY_MS in eureka-core).
const (
	lateRegistration = 500 * time.Millisecond
	lateReplication  = 1250 * time.Millisecond
)

// cancelsFor bounds the time for which an instance is cancelled that comes back.
const cancelsFor = 10 * time.Second

// Deregister cancels the instance at every peer, and twice more a moment later.
// Netflix' client tells its servers as its app ends that it is DOWN, which is a
// registration, and does so beside its own cancellation
// (spring-cloud-netflix#1543): a busy server may come to it last, after the app
// has gone. And a server that has just had a heartbeat of the app registers the
// instance with its peers where they have forgotten it. It would stay until its
// lease ends, or for good where the server preserves itself.
//
// An instance that has come back is cancelled, and looked for again after that.
// Where the sidecar has registered it, the time of what it has sent last is known,
// and servers that are slow are given time to tell each other of that. What ctx's
// deadline leaves no time for is left out: an instance that was cancelled is
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
		switch now := time.Now(); {
		case ctx.Err() != nil:
			return nil
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

// toldOfOurs is when servers have told each other of what the sidecar has sent last
// to register the app: of a heartbeat, and then of a registration.
func (r *Registry) toldOfOurs() time.Time {
	if r.registrant == nil {
		return time.Time{}
	}
	// An earlier process of the pod may have sent something right before this one.
	return later(r.registrant.lastSaid(), r.began).Add(2 * toldWithin)
}

// cancel cancels the instance, and reports whether any peer has held it.
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
