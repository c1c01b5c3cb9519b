package eureka

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// listing is what one peer's answers have been seen to list of the pod, as long
// as the peer holds the pod in the same state.
type listing struct {
	state string          // what the peer held, as in view
	shown map[answer]bool // answers that list all of it
}

// Listed reports whether every answer that clients read lists the pod as UP, at
// every peer that is not down. A client may read any of these answers, and each
// has a cache of its own. Listed first reads what the peer itself holds, and
// then the answers one after the other, the cheap ones first, up to the first
// that does not list the pod yet. An answer that has listed the pod is not
// requested again: answers do not go back in time.
//
// An instance that is STARTING, DOWN or OUT_OF_SERVICE is not listed. If the
// pod has several instances, only those that are UP count.
func (r *Registry) Listed(ctx context.Context) (listed bool, why string, err error) {
	var mu sync.Mutex
	missing := map[*peer]string{}
	err = r.atPeers(ctx, func(ctx context.Context, p *peer) error {
		why, err := r.missingAt(ctx, p)
		mu.Lock()
		defer mu.Unlock()
		missing[p] = why
		return err
	})
	if err != nil {
		return false, "", err
	}
	for _, p := range r.peers {
		if missing[p] != "" {
			return false, p.url + ": " + missing[p], nil
		}
	}
	return true, "", nil
}

// missingAt returns the reason why not all answers of a peer list the pod;
// empty if they do.
func (r *Registry) missingAt(ctx context.Context, p *peer) (why string, err error) {
	names := r.names()
	if len(names) == 0 {
		if names, err = r.spot(ctx, p); err != nil || len(names) == 0 {
			return "it does not list the pod's instance", err
		}
	}
	held := map[name]seen{}
	why = "it does not hold the pod's instance"
	var state strings.Builder
	for _, n := range names {
		switch i, err := p.instance(ctx, n); {
		case isNotFound(err):
		case err != nil:
			return "", fmt.Errorf("%w (%s)", err, n)
		case r.isEarlierPods(i):
			why = fmt.Sprintf("the instance %s is registered at %s, not at this pod's %s: it is an earlier pod's until the app registers", n, i.IP, addresses(r.ips))
		case !i.available():
			r.locate()
			why = fmt.Sprintf("the instance %s is %s", n, i.Status)
		default:
			r.locate()
			held[n] = i
			fmt.Fprintf(&state, "%s %s %s\n", n, i.IP, i.Updated)
		}
	}
	if len(held) == 0 {
		return why, nil
	}
	l := r.listing(p, state.String())
	for _, a := range r.answersByCost() {
		if l.shown[a] {
			continue
		}
		lacks, err := p.lacks(ctx, a, held)
		if err != nil {
			return "", err
		}
		if lacks != "" {
			return fmt.Sprintf("the instance %s is UP, and %s (%s) does not list it yet", lacks, a.path, a.accept), nil
		}
		l.shown[a] = true
	}
	return "", nil
}

// isEarlierPods reports whether an instance with the configured id is at
// another address than the pod's, and was already there before this process
// started.
func (r *Registry) isEarlierPods(i seen) bool {
	return len(r.ips) > 0 && !i.hasIP(r.ips) && (i.age < 0 || i.age >= time.Since(r.began))
}

// spot looks for the pod's instances in the cheapest answer that will list them,
// and remembers their names. Find looks through the others.
func (r *Registry) spot(ctx context.Context, p *peer) ([]name, error) {
	if r.id != "" {
		return r.lookUpAll(ctx, p)
	}
	l := changes()
	if r.app != "" {
		l = oneApp(r.app)
	}
	var found []instance
	_, err := p.each(ctx, l, asJSON, func(i instance) bool {
		if r.isOwn(i) && i.Action != "DELETED" {
			found = append(found, i)
		}
		return true
	})
	switch {
	case isNotFound(err) && r.app != "", hasStatus(err, http.StatusForbidden) && r.app == "":
		return nil, p.check(ctx)
	case isNotFound(err):
		return nil, errNotEureka
	case err != nil:
		return nil, fmt.Errorf("%w (%s)", err, l.path)
	}
	r.remember(found)
	return r.names(), nil
}

// listing returns what p's answers have shown while p holds the pod in this
// state.
func (r *Registry) listing(p *peer, state string) *listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.listings[p]
	if l == nil || l.state != state {
		l = &listing{state: state, shown: map[answer]bool{}}
		if r.listings == nil {
			r.listings = map[*peer]*listing{}
		}
		r.listings[p] = l
	}
	return l
}

// answersByCost returns all answers that clients read, those with the fewest
// instances first.
func (r *Registry) answersByCost() []answer {
	all := r.answers()
	cost := func(a answer) int {
		switch a.list {
		case allApps():
			return 2
		case changes():
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b answer) int { return cost(a) - cost(b) })
	return all
}

// lacks returns the first of the instances that an answer should list as UP and
// does not; empty if it lists them all. The list of changes covers only the
// last minutes: it need not list older instances.
func (p *peer) lacks(ctx context.Context, a answer, held map[name]seen) (string, error) {
	var wanted []name
	for n := range held {
		i := held[n]
		older := a.list == changes() && (i.age < 0 || i.age >= freshFor)
		otherApp := a.list != changes() && a.list != allApps() && a.list != oneApp(n.app)
		if !older && !otherApp {
			wanted = append(wanted, n)
		}
	}
	if len(wanted) == 0 {
		return "", nil
	}
	_, err := p.each(ctx, a.list, a.accept, func(i instance) bool {
		if i.available() && i.IP == held[i.name()].IP {
			wanted = without(wanted, []name{i.name()})
		}
		return len(wanted) > 0
	})
	switch {
	case isNotFound(err) && a.list != allApps() && a.list != changes():
		return wanted[0].String(), nil // no such application yet
	case isNotFound(err):
		return "", errNotEureka
	case hasStatus(err, http.StatusForbidden) && a.list == changes():
		return "", nil // switched off: no client reads it
	case err != nil:
		return "", fmt.Errorf("%w (%s)", err, a.path)
	case len(wanted) > 0:
		slices.SortFunc(wanted, name.compare)
		return wanted[0].String(), nil
	}
	return "", nil
}
