package eureka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// freshFor is how long Withdrawn requires apps/delta to show a change that a
// server has made: clients that read only changes learn of it there. Servers
// keep changes for three minutes, and renew the answer every 30 s.
const freshFor = time.Minute

// slowAnswer is the response time from which a server is queried for its other
// answers concurrently: one after the other, they would take longer than the
// pod has.
const slowAnswer = 400 * time.Millisecond

// Withdrawn reports whether no peer's answers to clients list the pod as
// available any more. It requests every answer that clients read, see the
// package comment. Peers that are down are left out, because they serve no
// clients. Withdrawn returns false without an error as soon as one peer is seen
// to list the pod, whatever the others answer.
//
// It may be called at any rate: a peer is queried only when that is due, see
// the package comment. Until then its last result is returned.
func (r *Registry) Withdrawn(ctx context.Context) (bool, error) {
	var listed atomic.Bool
	err := r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		gone, err := r.goneAt(ctx, p)
		if err == nil && !gone {
			listed.Store(true)
		}
		return err
	})
	if listed.Load() {
		return false, nil
	}
	return err == nil, err
}

func (r *Registry) goneAt(ctx context.Context, p *peer) (bool, error) {
	v := r.view(p)
	v.calls.Lock()
	defer v.calls.Unlock()
	if gone, ok := v.stands(); ok {
		return gone, nil
	}
	gone, err := r.look(ctx, p, v)
	if err != nil {
		return false, err
	}
	v.plan(gone)
	return gone, nil
}

// look queries one peer. What each answer has shown is kept as long as the
// server holds the pod in the same state: answers do not go back in time.
func (r *Registry) look(ctx context.Context, p *peer, v *view) (bool, error) {
	began := time.Now()
	ownDue := !v.goneSince.IsZero() || v.heldAt.IsZero() || time.Since(v.heldAt) >= v.ownPause()
	for {
		if ownDue {
			switch available, err := r.readOwn(ctx, p, v); {
			case err != nil:
				return false, err
			case available:
				return false, nil
			}
		}
		gone, err := r.readAnswers(ctx, p, v)
		if err != nil || !gone {
			return false, err
		}
		if !v.heldAt.Before(began) {
			return true, nil
		}
		ownDue = true // what the answers have shown may be out of date
	}
}

// readOwn reads what the server itself holds. The server's answers to clients
// cannot be newer than that.
func (r *Registry) readOwn(ctx context.Context, p *peer, v *view) (available bool, err error) {
	names := r.names()
	if len(names) == 0 && (r.id != "" || !v.lookedUp) {
		if names, err = r.lookUpAll(ctx, p); err != nil {
			return false, err
		}
		v.lookedUp = true
	}
	began := time.Now()
	held := map[name]seen{}
	for _, n := range names {
		switch i, err := p.instance(ctx, n); {
		case isNotFound(err):
		case err != nil:
			return false, fmt.Errorf("%w (%s)", err, n)
		default:
			r.locate()
			held[n] = i
			available = available || i.available()
		}
	}
	v.setHeld(held, began)
	v.took = time.Since(began)
	return available, nil
}

// setHeld records what the server held at time at.
func (v *view) setHeld(held map[name]seen, at time.Time) {
	var state strings.Builder
	leaves := true
	for _, n := range slices.SortedFunc(maps.Keys(held), name.compare) {
		i := held[n]
		leaves = leaves && i.Status == down && !i.overridden() // the app itself reports DOWN: it is shutting down
		fmt.Fprintf(&state, "%s %s %s\n", n, i.Status, i.Updated)
	}
	if before := v.state; before != state.String() {
		v.state = state.String()
		if leaves && before != "" {
			v.keepLarge(before)
		}
	}
	v.held, v.heldAt = held, at
}

// keepLarge keeps the results of the large answers for one more period of the
// server's cache, although the state of the pod at the server has changed.
// Clients are not sent to the pod in either state.
func (v *view) keepLarge(before string) {
	for a, e := range v.read {
		if a.list == allApps() && e.gone && e.state == before && time.Since(e.at) < ServerCache {
			e.state = v.state
			v.read[a] = e
		}
	}
}

// readAnswers reads the answers to clients that have not yet been seen without
// the pod, until one lists it.
//
// Once the server has had time to renew its answers, readAnswers continues, one
// time, until a second answer lists the pod. If none does, the answer that
// lists it is outdated: the server keeps it for too long.
func (r *Registry) readAnswers(ctx context.Context, p *peer, v *view) (gone bool, err error) {
	v.expire(r)
	thorough := !v.thorough && time.Since(v.since) > rewriteAfter
	listed := 0
	for _, a := range v.next(r.answers()) {
		if listed > 0 && v.size(a) > largeAnswer {
			break
		}
		began := time.Now()
		switch gone, err := r.goneFrom(ctx, p, v, a); {
		case err != nil:
			return false, err
		case !gone:
			listed++
			if !thorough || listed > 1 {
				v.thorough = v.thorough || thorough
				return false, nil
			}
		case time.Since(began) > slowAnswer && listed == 0:
			return r.readAtOnce(ctx, p, v)
		}
	}
	v.outdated = listed > 0
	v.thorough = v.thorough || v.outdated
	return listed == 0, nil
}

// readAtOnce queries a slow server for all remaining answers concurrently.
func (r *Registry) readAtOnce(ctx context.Context, p *peer, v *view) (bool, error) {
	left := v.next(r.answers())
	shown := make([]evidence, len(left))
	errs := make([]error, len(left))
	names, fresh, state := r.names(), v.fresh(), v.state
	var running sync.WaitGroup
	for n, a := range left {
		running.Go(func() { shown[n], errs[n] = r.read(ctx, p, a, names, fresh, state) })
	}
	running.Wait()
	gone := true
	var failed error
	for n, a := range left {
		if errs[n] != nil {
			failed = errs[n]
			continue
		}
		v.shows(a, shown[n])
		gone = gone && shown[n].gone
	}
	return gone && failed == nil, failed
}

// expire discards the result of one small answer, once per period of the
// server's cache and before clients have forgotten the pod: an app may have
// come back under an unknown id.
func (v *view) expire(r *Registry) {
	if r.id != "" || v.goneSince.IsZero() {
		return
	}
	a := answer{changes(), asJSON}
	if apps := r.appsOf(r.names()); len(apps) > 0 {
		a.list = oneApp(apps[0])
	}
	every := min(ServerCache, max(r.refresh-lastLook, 0))
	if e := v.read[a]; e.gone && time.Since(e.at) >= every {
		e.gone = false
		v.read[a] = e
	}
}

// fresh returns the names that were changed so recently that apps/delta must
// show them.
func (v *view) fresh() []name {
	var fresh []name
	for n := range v.held {
		if i := v.held[n]; i.age >= 0 && i.age+time.Since(v.heldAt) < freshFor {
			fresh = append(fresh, n)
		}
	}
	return fresh
}
