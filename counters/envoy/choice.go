package envoy

import (
	"regexp"
	"slices"
	"strings"
)

// choice is the set of listeners and managers that are counted.
type choice struct {
	listeners map[string]bool
	managers  map[string]bool
}

// choose selects what is counted: what the regular expression matches, or, if
// it is nil, everything except internal listeners and those in leftOut. A
// selected listener includes its managers.
func (s *stats) choose(pattern *regexp.Regexp, leftOut map[string]bool) choice {
	c := choice{listeners: make(map[string]bool), managers: make(map[string]bool)}
	for name, l := range s.listeners {
		if pattern != nil && pattern.MatchString(name) || pattern == nil && !leftOut[name] && !isInternalListener(name, l.managers) {
			c.listeners[name] = true
		}
	}
	for name := range s.managers {
		switch {
		case pattern != nil:
			c.managers[name] = pattern.MatchString(name)
		case s.unattached(name):
			c.managers[name] = !isInternal(name, "")
		}
	}
	for name := range c.listeners {
		for _, m := range s.listeners[name].managers {
			if pattern != nil || !isInternal(m, name) {
				c.managers[m] = true
			}
		}
	}
	return c
}

// any reports whether anything is counted.
func (c choice) any() bool {
	if len(c.listeners) > 0 {
		return true
	}
	for _, counted := range c.managers {
		if counted {
			return true
		}
	}
	return false
}

// unattached reports whether the manager is not known to belong to any
// listener.
func (s *stats) unattached(manager string) bool {
	for _, l := range s.listeners {
		if slices.Contains(l.managers, manager) {
			return false
		}
	}
	return true
}

// isInternalListener reports whether all managers of a listener are internal:
// nothing that it serves is the pod's work.
func isInternalListener(name string, managers []string) bool {
	for _, m := range managers {
		if !isInternal(m, name) {
			return false
		}
	}
	return len(managers) > 0
}

// isInternal reports whether a manager of a listener serves statistics,
// readiness or the admin interface, as control planes configure them. If an
// app's manager may have the same name, the port must match too.
func isInternal(manager, listener string) bool {
	switch manager {
	case "eg-ready-http", "eg-stats-http": // Envoy Gateway
		return true
	case "envoy-admin": // Contour
		return true
	case "stats": // Contour and Istio
		return strings.HasSuffix(listener, "_8002") || strings.HasSuffix(listener, "_15090")
	case "agent": // Istio's readiness
		return strings.HasSuffix(listener, "_15021")
	}
	return false
}

// sum adds up what is in flight and what has arrived.
func (s *stats) sum(c choice) (inFlight int64, arrived uint64) {
	for name := range c.managers {
		if m := s.managers[name]; c.managers[name] {
			inFlight += m.active
			arrived += m.requests - min(m.checks, m.requests)
		}
	}
	// A listener may have filter chains of both kinds. A connection that is not
	// a manager's is a plain one.
	var mixed, http listener
	seen := make(map[string]bool)
	for name := range c.listeners {
		l := s.listeners[name]
		if len(l.managers) == 0 {
			inFlight += l.conns
			arrived += l.connsEver
			continue
		}
		mixed.conns += l.conns
		mixed.connsEver += l.connsEver
		for _, m := range l.managers {
			if !seen[m] {
				seen[m] = true
				elsewhere := s.elsewhere(m, c)
				http.conns += max(0, s.managers[m].conns-elsewhere.conns)
				http.connsEver += s.managers[m].connsEver - min(elsewhere.connsEver, s.managers[m].connsEver)
			}
		}
	}
	inFlight += max(0, mixed.conns-http.conns)
	arrived += mixed.connsEver - min(http.connsEver, mixed.connsEver)
	return inFlight, arrived
}

// elsewhere returns the connections of the listeners that have the manager and
// are not counted. As many of the manager's connections may belong to them.
func (s *stats) elsewhere(manager string, c choice) (all listener) {
	for name, l := range s.listeners {
		if !c.listeners[name] && slices.Contains(l.managers, manager) {
			all.conns += l.conns
			all.connsEver += l.connsEver
		}
	}
	return all
}

// open returns how many connections clients hold to what is counted. known
// reports whether the statistics show this: each counted manager must belong to
// a counted listener.
func (s *stats) open(c choice) (conns int64, known bool) {
	attached := make(map[string]bool)
	for name := range c.listeners {
		l := s.listeners[name]
		if !l.knownPre {
			return 0, false
		}
		conns += l.conns + l.pre
		for _, m := range l.managers {
			attached[m] = true
		}
	}
	for m, counted := range c.managers {
		if counted && !attached[m] {
			return 0, false
		}
	}
	return conns, true
}
