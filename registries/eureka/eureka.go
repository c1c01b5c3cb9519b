package eureka

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Registry is the pod's instance in Eureka. Its methods may be called from
// several goroutines.
type Registry struct {
	peers  []*peer
	app    string // in upper case; empty: not told
	id     string // empty: found by ip and port
	ip     netip.Addr
	port   int
	status string // of a withdrawn instance

	mu sync.Mutex // guards what follows
	// known are the names under which peers have held the instance.
	known []name
	// withdrawn is set from the first Withdraw to the next Restore: what Find
	// must not undo.
	withdrawn bool
	// putBack is when an override was last removed.
	putBack time.Time
	// marked are the peers that may still hold an override that was to be
	// removed at once.
	marked map[*peer]bool
	// confirmed is, for each peer that Withdrawn found to tell nobody of the
	// pod any more, the state of its registry at the time.
	confirmed map[*peer]string
}

// maxKnown bounds the names that are remembered: an app that takes a new id
// with each restart has many.
const maxKnown = 32

// nudgeAfter is how long a server has to forget an answer that it was making
// while the instance was withdrawn.
const nudgeAfter = 10 * time.Second

// remainsFor is how long after the removal of an override Find looks for what is
// left of it, see areRemains.
const remainsFor = time.Minute

// toldWithin is how long servers need to tell each other of a change: they hold
// it back for 500ms, and are slow at times.
const toldWithin = 3 * time.Second

// How late an instance may be registered that is cancelled: by what the app has
// sent last, and by one server that tells another of the app's last heartbeat.
// A server holds what it tells others back for 500ms, here twice: the heartbeat,
// and the registration when the other one does not know the instance
// (PeerEurekaNode.heartbeat and MAX_BATCHING_DELAY_MS in eureka-core).
const (
	lateRegistration = 500 * time.Millisecond
	lateReplication  = 1250 * time.Millisecond
)

// Withdraw overrides the instance's status at every peer. It returns nil when
// all peers have done so, or do not know the instance, or are down (see the
// package's comment); an instance that is not registered has nothing to be
// withdrawn.
//
// Called again, because clients are still told of the instance, it also makes
// servers throw away the answers that they keep, see the package's comment.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	again := r.withdrawn
	r.withdrawn = true
	clear(r.marked) // Restore removes whatever override there is
	r.mu.Unlock()
	return r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, func(n name) error {
			i, err := p.instance(ctx, n)
			if err != nil {
				return err
			}
			steps := overrides(i.instance, r.status)
			if again && i.age > nudgeAfter && i.overridden() && i.Status == i.Overridden {
				steps = []string{other(string(i.Status)), string(i.Status)}
			}
			for _, status := range steps {
				if err := p.override(ctx, n, status); err != nil {
					return err
				}
			}
			return nil
		})
	})
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

// other is the other one of the two statuses that a withdrawn instance has.
func other(status string) string {
	if status == down {
		return outOfService
	}
	return down
}

// Restore removes the override at every peer. The instance is UP at once if
// that is what it was when it was withdrawn, as far as can be told; otherwise
// it has the status that the app itself has from the app's next heartbeat on.
func (r *Registry) Restore(ctx context.Context) error {
	r.mu.Lock()
	r.withdrawn, r.confirmed = false, nil
	r.mu.Unlock()
	return r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		return r.forOwn(ctx, p, func(n name) error {
			i, err := p.instance(ctx, n)
			if err != nil || !i.overridden() {
				return err
			}
			return r.removeOverride(ctx, p, n, r.ownStatus(i.instance))
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
	r.putBack = time.Now()
	r.mu.Unlock()
	if err := p.removeOverride(ctx, n, status); err != nil {
		return err
	}
	i, err := p.instance(ctx, n)
	switch {
	case err != nil:
		return err
	case !i.overridden():
		r.mark(p, false)
		return nil
	}
	return r.setAnew(ctx, p, n, i.Status, status)
}

// setAnew sets a status that stays although there is no override to be removed:
// by an override, and its removal. The present status is needed because servers
// record only an override that differs from it.
func (r *Registry) setAnew(ctx context.Context, p *peer, n name, present loose, status string) error {
	r.mark(p, true)
	err := p.override(ctx, n, other(string(present)))
	if err == nil {
		err = p.removeOverride(ctx, n, status)
	}
	if err == nil {
		r.mark(p, false)
	}
	return err
}

func (r *Registry) mark(p *peer, marked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if marked {
		r.marked[p] = true
	} else {
		delete(r.marked, p)
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
		return r.forOwn(ctx, p, func(n name) error { return p.cancel(ctx, n) })
	})
}

// atPeers runs f for all peers side by side. The error joins the failures, less
// those of peers that are down if another has answered. Each begins with the
// peer's URL; what was being done is known to whoever called.
func (r *Registry) atPeers(ctx context.Context, f func(context.Context, *peer) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("no server was asked: %w", err)
	}
	errs := make([]error, len(r.peers))
	var running sync.WaitGroup
	for n, p := range r.peers {
		running.Go(func() {
			if err := f(ctx, p); err != nil {
				errs[n] = fmt.Errorf("%s: %w", p.url, err)
			}
		})
	}
	running.Wait()
	if slices.Contains(errs, nil) {
		errs = slices.DeleteFunc(errs, isDown)
	}
	return errors.Join(errs...)
}

// forOwn runs f for each name of the pod's instance at p. A name that p does
// not know is passed over.
func (r *Registry) forOwn(ctx context.Context, p *peer, f func(name) error) error {
	names, err := r.own(ctx, p)
	if err != nil {
		return err
	}
	found := false
	for _, n := range names {
		switch err := f(n); {
		case isNotFound(err):
		case err != nil:
			return fmt.Errorf("%w (%s)", err, n)
		default:
			found = true
		}
	}
	if !found {
		return p.check(ctx)
	}
	return nil
}

// own returns the names of the pod's instance: what is configured, or what p
// and the other peers have shown so far.
func (r *Registry) own(ctx context.Context, p *peer) ([]name, error) {
	if r.id == "" || r.app == "" {
		var found []name
		err := r.lookUp(ctx, p, func(i instance) { found = append(found, i.name()) })
		r.remember(found)
		if err != nil && (ctx.Err() != nil || len(r.names()) == 0) {
			return nil, err
		}
		// With a name that is known, a look-up that failed is no loss.
	}
	return r.names(), nil
}

// lookUp visits the pod's instances at p. Without a configured id it reads what
// clients read, which is as old as theirs.
func (r *Registry) lookUp(ctx context.Context, p *peer, visit func(instance)) error {
	if r.id != "" {
		i, err := p.instanceByID(ctx, r.id)
		if err == nil {
			visit(i.instance)
		}
		return passOver404(err)
	}
	return passOver404(p.each(ctx, r.list(), asJSON, func(i instance) bool {
		if r.isOwn(i) {
			visit(i)
		}
		return true
	}))
}

// list is what to look through for the instance.
func (r *Registry) list() list {
	if r.app == "" {
		return allApps()
	}
	return oneApp(r.app)
}

func passOver404(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// isOwn tells whether a list's entry leads clients to the pod.
func (r *Registry) isOwn(i instance) bool {
	if r.app != "" && string(i.App) != r.app {
		return false
	}
	if r.id != "" {
		return i.name().id == r.id
	}
	return i.isAt(r.ip, r.port)
}

// names are those that are known without asking.
func (r *Registry) names() []name {
	if r.id != "" && r.app != "" {
		return []name{{r.app, r.id}}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.known)
}

func (r *Registry) remember(names []name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		if !slices.Contains(r.known, n) {
			r.known = append(r.known, n)
		}
	}
	if over := len(r.known) - maxKnown; over > 0 {
		r.known = slices.Delete(r.known, 0, over)
	}
}
