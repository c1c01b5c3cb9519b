package eureka

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// freshFor is how long a change that a server has made must show in its
// apps/delta before Withdrawn believes it: clients that read only changes learn
// it from there. Servers keep changes for three minutes, and renew the answer
// every half a minute.
const freshFor = time.Minute

// Withdrawn tells whether no peer's answers to clients hold the pod as
// available any more. It asks for every answer that clients read, see the
// package's comment; peers that are down tell nobody. It is false without an
// error as soon as one peer is seen to list the pod, whatever the others say.
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
	names := r.names()
	r.mu.Lock()
	confirmed, wasConfirmed := r.confirmed[p]
	r.mu.Unlock()
	if len(names) == 0 && !wasConfirmed {
		var err error
		if names, err = r.own(ctx, p); err != nil {
			return false, err
		}
	}

	// What the server holds. Its answers to clients cannot be ahead of that.
	var state strings.Builder
	var fresh []name
	for _, n := range names {
		i, err := p.instance(ctx, n)
		switch {
		case isNotFound(err):
			continue
		case err != nil:
			return false, fmt.Errorf("%w (%s)", err, n)
		case i.available():
			return false, nil
		case i.age >= 0 && i.age < freshFor:
			fresh = append(fresh, n)
		}
		fmt.Fprintf(&state, "%s %s %s\n", n, i.Status, i.Updated)
	}

	// What it answers: a list of the few first. The whole registry is read
	// only once for each state, as the answers do not go back in time.
	lists := []list{changes()}
	for _, app := range r.appsOf(names) {
		lists = append(lists, oneApp(app))
	}
	if !wasConfirmed || confirmed != state.String() {
		lists = append(lists, allApps())
	}
	for _, l := range lists {
		for _, accept := range []string{asJSON, asXML} {
			if gone, err := r.goneFrom(ctx, p, l, accept, names, fresh); err != nil || !gone {
				return false, err
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.confirmed == nil {
		r.confirmed = map[*peer]string{}
	}
	r.confirmed[p] = state.String()
	return true, nil
}

// appsOf returns the applications of names, and the configured one.
func (r *Registry) appsOf(names []name) []string {
	var apps []string
	if r.app != "" {
		apps = append(apps, r.app)
	}
	for _, n := range names {
		if !slices.Contains(apps, n.app) {
			apps = append(apps, n.app)
		}
	}
	return apps
}

// goneFrom tells whether one answer of p holds the pod as available no more,
// and, if it is that of the changes, shows the fresh ones.
func (r *Registry) goneFrom(ctx context.Context, p *peer, l list, accept string, names, fresh []name) (bool, error) {
	listed := false
	var shown []name
	err := p.each(ctx, l, accept, func(i instance) bool {
		n := i.name()
		if slices.Contains(names, n) || r.isOwn(i) {
			shown = append(shown, n)
			listed = listed || i.available()
		}
		return !listed
	})
	switch {
	case isNotFound(err) && l != allApps() && l != changes():
		return true, nil // no such application
	case isNotFound(err):
		return false, errNotEureka
	case hasStatus(err, http.StatusForbidden) && l == changes():
		return true, nil // switched off: no client reads it. A server that refuses more refuses apps too.
	case err != nil:
		return false, fmt.Errorf("%w (%s)", err, l.path)
	case listed:
		return false, nil
	case l != changes():
		return true, nil
	}
	return !slices.ContainsFunc(fresh, func(n name) bool { return !slices.Contains(shown, n) }), nil
}
