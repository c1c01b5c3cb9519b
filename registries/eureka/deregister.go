package eureka

import (
	"context"
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

// Deregister cancels the instance at every peer, and twice more a moment later.
// Netflix' client tells its servers as its app ends that it is DOWN, which is a
// registration, and does so beside its own cancellation
// (spring-cloud-netflix#1543): a busy server may come to it last, after the app
// has gone. And a server that has just had a heartbeat of the app registers the
// instance with its peers where they have forgotten it. It would stay until its
// lease ends, or for good where the server preserves itself. What ctx's deadline
// leaves no time for is left out: an instance that was cancelled is deregistered.
func (r *Registry) Deregister(ctx context.Context) error {
	if err := r.cancel(ctx); err != nil {
		return err
	}
	cancelled := time.Now()
	for _, late := range []time.Duration{lateRegistration, lateReplication} {
		due := cancelled.Add(late)
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
		if err := r.cancel(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (r *Registry) cancel(ctx context.Context) error {
	return r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, false, func(n name) error {
			if err := p.cancel(ctx, n); err != nil {
				return err
			}
			return r.rightNamesakes(ctx, p, n)
		})
	})
}
