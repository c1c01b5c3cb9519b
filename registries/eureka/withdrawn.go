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

// freshFor is how long a change that a server has made must show in its
// apps/delta before Withdrawn believes it: clients that read only changes learn
// it from there. Servers keep changes for three minutes, and renew the answer
// every half a minute.
const freshFor = time.Minute

// slowAnswer is how long an answer takes where a server is asked for the rest of
// its answers side by side: one after the other they would take longer than the
// pod has.
const slowAnswer = 400 * time.Millisecond

// Withdrawn reports whether no peer's answers to clients hold the pod as
// available any more. It asks for every answer that clients read, see the
// package's comment; peers that are down tell nobody. It is false without an
// error as soon as one peer is seen to list the pod, whatever the others say.
//
// It may be called as often as one likes: a peer is asked again when that is due,
// see the package's comment, and until then its last answer stands.
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

// look asks one peer. What each answer has shown is kept, for as long as the
// server holds the pod as it did then: answers do not go back in time.
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

// readOwn reads what the server itself holds. Its answers to clients cannot be
// ahead of that.
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

// setHeld takes in what the server held at the time at.
func (v *view) setHeld(held map[name]seen, at time.Time) {
	var state strings.Builder
	leaves := true
	for _, n := range slices.SortedFunc(maps.Keys(held), name.compare) {
		i := held[n]
		leaves = leaves && i.Status == down && !i.overridden() // by its own word: the app is going
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

// keepLarge lets what the large answers have shown stand for one period of the
// server's cache although the server no longer holds the pod as it did before,
// where it sends the pod no clients either way.
func (v *view) keepLarge(before string) {
	for a, e := range v.read {
		if a.list == allApps() && e.gone && e.state == before && time.Since(e.at) < ServerCache {
			e.state = v.state
			v.read[a] = e
		}
	}
}

// readAnswers asks for the answers to clients that have not been seen to be
// without the pod yet, until one lists it.
//
// Once, when the server has had the time to renew them, it goes on until a second
// one does: where all others are without the pod, the one that lists it is kept
// for too long.
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

// readAtOnce asks a server that is slow for all the answers that are left.
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

// expire forgets, once in a period of the server's cache and before clients have
// forgotten the pod, what one small answer has shown: an app may have come back
// under an id that is not known.
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

// fresh are the names that have been changed so lately that apps/delta has to
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
