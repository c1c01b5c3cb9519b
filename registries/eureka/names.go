package eureka

import (
	"context"
	"fmt"
	"slices"
)

// lookUpAll looks for the pod's instances at p, remembers their names and
// returns them.
func (r *Registry) lookUpAll(ctx context.Context, p *peer) ([]name, error) {
	var found []instance
	err := r.lookUp(ctx, p, func(i instance) { found = append(found, i) })
	r.remember(found)
	var names []name
	for n := range found {
		names = append(names, found[n].name())
	}
	return names, err
}

// lookUp visits the pod's instances at p. Without a configured id it reads the
// answer that clients read, which is as old as theirs.
func (r *Registry) lookUp(ctx context.Context, p *peer, visit func(instance)) error {
	if r.id != "" && r.app == "" {
		return r.lookUpID(ctx, p, visit)
	}
	_, err := p.each(ctx, r.list(), asJSON, func(i instance) bool {
		if r.isOwn(i) {
			visit(i)
		}
		return true
	})
	return passOver404(err)
}

// lookUpID visits the instance with the configured id when its application is
// not configured. A server that holds several such instances returns any of
// them. If that one is not at the pod's address, lookUpID searches all
// instances for one that is.
func (r *Registry) lookUpID(ctx context.Context, p *peer, visit func(instance)) error {
	i, err := p.instanceByID(ctx, r.id)
	switch {
	case err != nil:
		return passOver404(err)
	case len(r.ips) == 0 || i.hasIP(r.ips):
		visit(i.instance)
		return nil
	}
	var all []instance
	if _, err := p.each(ctx, allApps(), asJSON, func(i instance) bool {
		if i.name().id == r.id {
			all = append(all, i)
		}
		return true
	}); err != nil {
		return passOver404(err)
	}
	here := slices.DeleteFunc(slices.Clone(all), func(i instance) bool { return !i.hasIP(r.ips) })
	switch {
	case len(here) > 0:
		for n := range here {
			visit(here[n])
		}
	case len(all) > 1:
		return fmt.Errorf("%d applications have an instance %q (LASTCALL_EUREKA_INSTANCE_ID), none of them at the pod's address %s (LASTCALL_POD_IP): set LASTCALL_EUREKA_APP", len(all), r.id, addresses(r.ips))
	default:
		visit(i.instance)
	}
	return nil
}

// list returns the list in which to look for the instance.
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

// isOwn reports whether the list entry i sends clients to the pod.
func (r *Registry) isOwn(i instance) bool {
	if r.app != "" && string(i.App) != r.app {
		return false
	}
	if r.id != "" {
		return i.name().id == r.id && (r.app != "" || !r.isNamesake(i))
	}
	return i.isAt(r.ips, r.port)
}

// isNamesake reports whether i, which has the configured id, is known not to be
// the pod's instance while the pod's application is not configured: i is at
// another address, and the pod's instance is known in another application.
func (r *Registry) isNamesake(i instance) bool {
	if len(r.ips) == 0 || i.hasIP(r.ips) {
		return false
	}
	known := r.names()
	return len(known) > 0 && !slices.Contains(known, i.name())
}

// names returns the names that are known without a query.
func (r *Registry) names() []name {
	if r.id != "" && r.app != "" {
		return []name{{r.app, r.id}}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.known)
}

func (r *Registry) remember(found []instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := range found {
		if n := found[at].name(); !slices.Contains(r.known, n) {
			r.known = append(r.known, n)
		}
		r.located = true
	}
	if over := len(r.known) - maxKnown; over > 0 {
		r.known = slices.Delete(r.known, 0, over)
	}
}

func (r *Registry) locate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.located = true
}

// sawBefore remembers an instance that is not withdrawn, for a later
// withdrawal: if it is UP, the override can be set without reading the instance
// first.
func (r *Registry) sawBefore(s sighting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.withdrawn {
		return
	}
	if known, ok := r.before[s.name]; ok && known.Dirty.number() > s.Dirty.number() {
		return
	}
	if r.before == nil {
		r.before = map[name]instance{}
	}
	if len(r.before) >= maxKnown {
		clear(r.before)
	}
	r.before[s.name] = s.instance
}

func (r *Registry) lastBefore(n name) (instance, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.before[n]
	return i, ok
}

// without returns the names that are not in known.
func without(names, known []name) []name {
	return slices.DeleteFunc(names, func(n name) bool { return slices.Contains(known, n) })
}
