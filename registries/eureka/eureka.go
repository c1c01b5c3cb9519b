package eureka

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lastcall/drain"
)

// Registry is the pod's instance in Eureka. Its methods are safe for concurrent
// use.
//
// It remembers what it has learned and which steps are done. A call that was
// cut off is continued by the next one.
type Registry struct {
	peers   []*peer
	app     string // in upper case; empty if not configured
	id      string // empty: found by address and port
	ips     []netip.Addr
	port    int
	status  string        // of a withdrawn instance
	refresh time.Duration // how long clients use their copy
	began   time.Time     // when New made it

	registrant *registrant // nil: the app registers itself

	mu sync.Mutex // guards what follows
	// known are the names under which peers have held the instance.
	known []name
	// before is each instance as Find last saw it before the withdrawal.
	located bool
	// before is each instance as Find has last seen it, before it was withdrawn.
	before map[name]instance
	// withdrawn is true from the first Withdraw until the next Restore. Find
	// must not undo that withdrawal.
	withdrawn bool
	// restoredAt is when an override was last removed.
	restoredAt time.Time
	// overrideInDoubt are the peers that may still hold an override that was
	// meant to be removed at once.
	overrideInDoubt map[*peer]bool
	// views hold what each peer has been seen to answer in this drain.
	views map[*peer]*view
	// listings hold what each peer's answers have been seen to list of the pod.
	listings map[*peer]*listing
	// namesakes are instances of other applications with the same id as the
	// pod's, as they were first seen. searched is set once they have been
	// searched for.
	namesakes map[name]instance
	searched  bool
	// exempt are the instances whose withdrawal spared their namesakes.
	exempt map[exempted]bool
}

var (
	_ drain.Finder      = (*Registry)(nil)
	_ drain.CallLimiter = (*Registry)(nil)
	_ drain.Locator     = (*Registry)(nil)
	_ drain.Lister      = (*Registry)(nil)
	_ drain.Registrar   = (*Registry)(nil)
)

// maxKnown bounds the names that are remembered: an app that takes a new id
// with each restart has many.
const maxKnown = 32

// rewriteAfter is how long a server has to discard an answer that it was
// building when the instance was withdrawn.
const rewriteAfter = 10 * time.Second

// residueFor is how long after removing an override Find looks for residue of
// it, see hasResidue.
const residueFor = time.Minute

// toldWithin is how long servers need to replicate a change to each other: they
// delay it by 500 ms, and are slow at times.
const toldWithin = 3 * time.Second

// CallLimit returns how long the longest sequence of requests takes at a server
// that answers each within its limit: nine requests. One of them is Withdrawn.
func (r *Registry) CallLimit() time.Duration { return 9 * r.peers[0].limit }

// Located reports whether any peer has been seen to hold the instance.
func (r *Registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.located
}

// atPeers runs f for all peers concurrently. The error joins their failures. If
// one peer has answered, the failures of peers that are down are left out. Each
// failure begins with the peer's URL; the caller knows what was being done.
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

// forOwn runs f for each known name of the pod's instance at p. If none is
// known, or look is set, it looks for names at p first. It skips a name that p
// does not know.
func (r *Registry) forOwn(ctx context.Context, p *peer, look bool, f func(name) error) error {
	names := r.names()
	if (look || len(names) == 0) && (r.id == "" || r.app == "") {
		_, err := r.lookUpAll(ctx, p)
		if names = r.names(); err != nil && (ctx.Err() != nil || len(names) == 0) {
			return err
		}
		// If a name is known, a failed look-up does not matter.
	}
	found := false
	for _, n := range names {
		switch err := f(n); {
		case isNotFound(err):
		case err != nil:
			return fmt.Errorf("%w (%s)", err, n)
		default:
			found = true
			r.locate()
		}
	}
	if !found && (look || !r.Located()) {
		return p.check(ctx)
	}
	return nil
}
