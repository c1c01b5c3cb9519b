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

// Registry is the pod's instance in Eureka. Its methods may be called from
// several goroutines.
//
// What was learnt, and which steps are done, is kept from one call to the next:
// a call that was cut off is gone on with by the next one.
type Registry struct {
	peers   []*peer
	app     string // in upper case; empty: not told
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
	// located is set once a peer has been seen to hold the instance.
	located bool
	// before is each instance as Find has last seen it, before it was withdrawn.
	before map[name]instance
	// withdrawn is set from the first Withdraw to the next Restore: what Find
	// must not undo.
	withdrawn bool
	// restoredAt is when an override was last removed.
	restoredAt time.Time
	// overrideInDoubt are the peers that may still hold an override that was to
	// be removed at once.
	overrideInDoubt map[*peer]bool
	// views are what each peer has been seen to answer in this drain.
	views map[*peer]*view
	// listings are what each peer's answers have been seen to list of the pod.
	listings map[*peer]*listing
	// namesakes are the instances of other applications that have the id of the
	// pod's, as they were first seen; searched is set once they were looked for.
	namesakes map[name]instance
	searched  bool
	// exempt are those whose withdrawal has spared their namesakes.
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

// rewriteAfter is how long a server has to forget an answer that it was making
// while the instance was withdrawn.
const rewriteAfter = 10 * time.Second

// residueFor is how long after the removal of an override Find looks for what is
// left of it, see hasResidue.
const residueFor = time.Minute

// toldWithin is how long servers need to tell each other of a change: they hold
// it back for 500ms, and are slow at times.
const toldWithin = 3 * time.Second

// CallLimit returns the time that the longest chain of requests takes at a
// server that answers each within its limit: nine, of which Withdrawn is one.
func (r *Registry) CallLimit() time.Duration { return 9 * r.peers[0].limit }

// Located reports whether any peer has been seen to hold the instance.
func (r *Registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.located
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

// forOwn runs f for each name of the pod's instance at p that is known, or, when
// none is or a look is wanted, that can be found there. A name that p does not
// know is passed over.
func (r *Registry) forOwn(ctx context.Context, p *peer, look bool, f func(name) error) error {
	names := r.names()
	if (look || len(names) == 0) && (r.id == "" || r.app == "") {
		_, err := r.lookUpAll(ctx, p)
		if names = r.names(); err != nil && (ctx.Err() != nil || len(names) == 0) {
			return err
		}
		// With a name that is known, a look-up that failed is no loss.
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
