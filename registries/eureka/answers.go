package eureka

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// answers returns all answers that clients read and that may list the pod.
func (r *Registry) answers() []answer {
	var all []answer
	lists := []list{changes()}
	for _, app := range r.appsOf(r.names()) {
		lists = append(lists, oneApp(app))
	}
	for _, l := range append(lists, allApps()) {
		all = append(all, answer{l, asJSON}, answer{l, asXML})
	}
	return all
}

// appsOf returns the configured application and the applications of names.
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

// goneFrom reports whether answer a of p no longer lists the pod as available.
// If a is the list of changes, it must also show the fresh names.
func (r *Registry) goneFrom(ctx context.Context, p *peer, v *view, a answer) (bool, error) {
	e, err := r.read(ctx, p, a, r.names(), v.fresh(), v.state)
	if err != nil {
		return false, err
	}
	v.shows(a, e)
	return e.gone, nil
}

// shows records what one answer has shown. If the answer listed the pod since
// the last change and no longer does, it was renewed. An answer that nobody had
// requested before was built for this query, and proves nothing about the
// others.
func (v *view) shows(a answer, e evidence) {
	before := v.read[a]
	v.read[a] = e
	if e.gone && !before.gone && !before.at.Before(v.since) && v.turnedAt.IsZero() {
		v.turnedAt = e.at
	}
}

func (r *Registry) read(ctx context.Context, p *peer, a answer, names, fresh []name, state string) (evidence, error) {
	e := evidence{at: time.Now(), state: state}
	listed := false
	var shown []name
	var own, strangers []instance
	size, err := p.each(ctx, a.list, a.accept, func(i instance) bool {
		n := i.name()
		switch {
		case slices.Contains(names, n) || r.isOwn(i):
			shown = append(shown, n)
			own = append(own, i)
			listed = listed || i.available()
		case slices.ContainsFunc(names, func(o name) bool { return o.id == n.id }):
			strangers = append(strangers, i)
		}
		return !listed
	})
	e.size = size
	if err == nil {
		r.remember(own)
		r.rememberNamesakes(strangers, names)
	}
	switch {
	case isNotFound(err) && a.list != allApps() && a.list != changes():
		e.gone = true // no such application
		return e, nil
	case isNotFound(err):
		return e, errNotEureka
	case hasStatus(err, http.StatusForbidden) && a.list == changes():
		e.gone = true // switched off: no client reads it. A server that refuses everything refuses apps too.
		return e, nil
	case err != nil:
		return e, fmt.Errorf("%w (%s)", err, a.path)
	}
	e.gone = !listed && (a.list != changes() || !slices.ContainsFunc(fresh, func(n name) bool { return !slices.Contains(shown, n) }))
	return e, nil
}
