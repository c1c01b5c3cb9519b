package envoy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// filter is a regular expression that matches the requested statistics.
const filter = `^(http\..+\.downstream_(rq|cx)_(active|total)` +
	`|http\..+\.health_check\.request_total` +
	`|listener\..+\.downstream_(pre_cx_active|cx_active|cx_total)` +
	`|listener\..+\.http\..+\.downstream_rq_completed` +
	`|server\.(state|uptime|hot_restart_epoch|parent_connections))$`

// manager is an HTTP connection manager, or several with the same stat_prefix.
type manager struct {
	known      bool   // active is known
	active     int64  // requests
	knownTotal bool   // requests is known
	requests   uint64 // that have come
	checks     uint64 // requests that its health check filter has answered
	conns      int64
	connsEver  uint64
}

// listener is a listener, under its stat_prefix or address.
type listener struct {
	known      bool // conns is known
	conns      int64
	knownPre   bool  // pre is known
	pre        int64 // connections that do not count in conns yet
	knownTotal bool  // connsEver is known
	connsEver  uint64
	managers   []string // the HTTP managers of its filter chains; none: plain TCP
}

// stats are Envoy's statistics about its clients. Those of the admin interface
// are separate.
type stats struct {
	managers  map[string]manager
	listeners map[string]listener
	server    map[string]int64 // the requested statistics under server.
	admin     manager          // the manager of the admin interface
}

// parse parses the answer of /stats with format=json.
func parse(body []byte) (stats, error) {
	var answer struct {
		Stats []struct {
			Name  string `json:"name"`
			Value *int64 `json:"value"` // of counters and gauges; 0 − 1 is too large for it, and causes an error
		} `json:"stats"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return stats{}, fmt.Errorf("the answer is not Envoy's statistics: %w", err)
	}
	if answer.Stats == nil {
		return stats{}, errors.New("the answer is not Envoy's statistics: it has no list of them")
	}
	s := stats{managers: make(map[string]manager), listeners: make(map[string]listener), server: make(map[string]int64)}
	for _, one := range answer.Stats {
		if one.Value == nil {
			continue // a histogram or a text
		}
		if *one.Value < 0 {
			return stats{}, fmt.Errorf("the statistic %s is below zero", one.Name)
		}
		if name, found := strings.CutPrefix(one.Name, "http."); found {
			s.addManager(name, *one.Value)
		} else if name, found := strings.CutPrefix(one.Name, "listener."); found {
			s.addListener(name, *one.Value)
		} else if name, found := strings.CutPrefix(one.Name, "server."); found {
			s.server[name] = *one.Value
		}
	}
	s.admin = s.managers[admin]
	// An entry with connections but without active requests is not a manager,
	// but a part of one: Envoy also counts by user agent, for instance.
	maps.DeleteFunc(s.managers, func(_ string, m manager) bool { return !m.known })
	delete(s.managers, admin)
	delete(s.listeners, admin)
	return s, nil
}

// admin is the name of both the listener and the manager of the admin interface.
const admin = "admin"

// addManager adds a statistic with the prefix `http.`.
func (s *stats) addManager(name string, value int64) {
	name, statistic := cutLast(name)
	if statistic == "request_total" {
		name = strings.TrimSuffix(name, ".health_check")
	}
	m := s.managers[name]
	switch statistic {
	case "downstream_rq_active":
		m.active, m.known = value, true
	case "downstream_rq_total":
		m.requests, m.knownTotal = count(value), true
	case "downstream_cx_active":
		m.conns = value
	case "downstream_cx_total":
		m.connsEver = count(value)
	case "request_total":
		m.checks = count(value)
	}
	s.managers[name] = m
}

// addListener adds a statistic with the prefix `listener.`.
func (s *stats) addListener(name string, value int64) {
	name, statistic := cutLast(name)
	if perThread(name) {
		return
	}
	name, manager, _ := strings.Cut(name, ".http.")
	l := s.listeners[name]
	switch statistic {
	case "downstream_cx_active":
		l.conns, l.known = value, true
	case "downstream_pre_cx_active":
		l.pre, l.knownPre = value, true
	case "downstream_cx_total":
		l.connsEver, l.knownTotal = count(value), true
	case "downstream_rq_completed":
		l.managers = append(l.managers, manager)
	}
	s.listeners[name] = l
}

// cutLast cuts name at its last dot. Names of listeners and managers may
// contain dots.
func cutLast(name string) (before, after string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

// count returns the value of a counter, which parse has found not to be
// negative.
func count(value int64) uint64 { return uint64(value) } //nolint:gosec // see above

// perThread reports whether the name is that of one worker's part of a
// listener. The listener's own number includes that part.
func perThread(name string) bool {
	name, thread := cutLast(name)
	digits, found := strings.CutPrefix(thread, "worker_")
	return name != "" && (found && strings.Trim(digits, "0123456789") == "" || thread == "main_thread")
}

// names lists the first few names that a regular expression can match, for
// people.
func (s *stats) names() string {
	const most = 10
	list := slices.Concat(slices.Sorted(maps.Keys(s.managers)), slices.Sorted(maps.Keys(s.listeners)))
	if len(list) > most {
		list = append(list[:most], fmt.Sprintf("and %d more", len(list)-most))
	}
	return strings.Join(list, ", ")
}
