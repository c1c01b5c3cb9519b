package envoy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// configured is a listener in Envoy's configuration.
type configured struct {
	name     string // for people
	stat     string // its name in the statistics
	managers []string
	outbound bool // it accepts what this pod sends to others
	internal bool // its clients are other listeners of the same Envoy
	draining bool // it was removed or replaced, and accepts no new connections
}

// dumpedListener is a listener in an answer of /config_dump.
type dumpedListener struct {
	Name             string          `json:"name"`
	StatPrefix       string          `json:"stat_prefix"`
	TrafficDirection string          `json:"traffic_direction"`
	InternalListener json.RawMessage `json:"internal_listener"`
	Address          struct {
		Socket *struct {
			Address string `json:"address"`
			Port    int    `json:"port_value"`
		} `json:"socket_address"`
		Pipe *struct {
			Path string `json:"path"`
		} `json:"pipe"`
	} `json:"address"`
	FilterChains       []dumpedChain `json:"filter_chains"`
	DefaultFilterChain dumpedChain   `json:"default_filter_chain"`
}

type dumpedChain struct {
	Filters []struct {
		Config struct {
			Type       string `json:"@type"`
			StatPrefix any    `json:"stat_prefix"`
		} `json:"typed_config"`
	} `json:"filters"`
}

// dump is an answer of /config_dump for static or dynamic listeners.
type dump struct {
	Configs []struct {
		Name     string          `json:"name"`
		Listener *dumpedListener `json:"listener"` // of a static listener
		Active   *dumpedState    `json:"active_state"`
		Draining *dumpedState    `json:"draining_state"`
	} `json:"configs"`
}

type dumpedState struct {
	Listener dumpedListener `json:"listener"`
}

func parseDump(body []byte) (dump, error) {
	var d dump
	if err := json.Unmarshal(body, &d); err != nil {
		return dump{}, fmt.Errorf("the answer is not Envoy's configuration: %w", err)
	}
	return d, nil
}

// listeners returns the listeners of a dump that accept or have connections.
// Listeners that are still warming up do neither.
func (d dump) listeners() []configured {
	var list []configured
	for _, one := range d.Configs {
		if one.Listener != nil {
			list = append(list, one.Listener.configured(one.Name, false))
		}
		if one.Active != nil {
			list = append(list, one.Active.Listener.configured(one.Name, false))
		}
		if one.Draining != nil {
			list = append(list, one.Draining.Listener.configured(one.Name, true))
		}
	}
	return list
}

func (l *dumpedListener) configured(name string, draining bool) configured {
	c := configured{
		name:     l.Name,
		outbound: l.TrafficDirection == "OUTBOUND",
		internal: l.InternalListener != nil,
		draining: draining,
	}
	if c.name == "" {
		c.name = name
	}
	c.stat = sanitize(l.statName())
	for _, chain := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
		for _, f := range chain.Filters {
			prefix, _ := f.Config.StatPrefix.(string)
			if prefix != "" && strings.HasSuffix(f.Config.Type, ".HttpConnectionManager") && !slices.Contains(c.managers, sanitize(prefix)) {
				c.managers = append(c.managers, sanitize(prefix))
			}
		}
	}
	return c
}

// statName returns the name of a listener's statistics, before Envoy replaces
// some characters.
func (l *dumpedListener) statName() string {
	switch {
	case l.StatPrefix != "":
		return l.StatPrefix
	case l.InternalListener != nil:
		return "envoy_internal_" + l.Name
	case l.Address.Pipe != nil:
		return l.Address.Pipe.Path
	case l.Address.Socket == nil:
		return ""
	}
	address := l.Address.Socket.Address
	if ip, err := netip.ParseAddr(address); err == nil {
		address = ip.String()
	}
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return fmt.Sprintf("%s:%d", address, l.Address.Socket.Port)
}

// sanitize returns a name as it appears in the statistics.
func sanitize(name string) string {
	name = strings.TrimPrefix(strings.TrimSuffix(name, "."), ".")
	return strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_").Replace(name)
}

// dynamicNames returns the names from a dump that contains only dynamic
// listeners.
func (d dump) dynamicNames() []string {
	var names []string
	for _, one := range d.Configs {
		names = append(names, one.Name)
	}
	return names
}

// namesAtOnce is how many dynamic listeners are requested in one call. A mesh
// has hundreds of them, and some have hundreds of kilobytes.
const namesAtOnce = 16

// anyOf returns a regular expression that matches the names and nothing else.
func anyOf(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	return strings.Join(quoted, "|")
}

// parseListeners checks that body is Envoy's list of listeners. The list is
// read with each reading, and shows when the configuration must be read again.
func parseListeners(body []byte) error {
	var answer map[string][]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer is not Envoy's list of listeners: %w", err)
	}
	if answer == nil {
		return errors.New("the answer is not Envoy's list of listeners: it is null")
	}
	// An Envoy without listeners answers {}. An answer with another key is not
	// Envoy's.
	for name := range answer {
		if name != "listener_statuses" {
			return fmt.Errorf("the answer is not Envoy's list of listeners: it has %q", name)
		}
	}
	return nil
}

// config is what is known about the configuration.
type config struct {
	listeners []configured
}

// with returns a newer configuration. Listeners that are gone from it are kept
// as draining while they have statistics: their connections may outlive them.
func (c config) with(newer []configured, s stats) config {
	known := make(map[string]bool)
	for _, l := range newer {
		known[l.stat] = true
	}
	for _, l := range c.listeners {
		if _, found := s.listeners[l.stat]; found && !known[l.stat] {
			l.draining = true
			newer = append(newer, l)
		}
	}
	return config{newer}
}

// strange returns the names of listeners that are only in the statistics.
func (c config) strange(s stats) string {
	known := make(map[string]bool)
	for _, l := range c.listeners {
		known[l.stat] = true
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.listeners)) {
		if !known[name] {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// leftOut returns the names, in the statistics, of listeners whose clients are
// not the pod's: internal and outbound ones. If there is no other listener to
// count, as on the gateways of a mesh, the outbound listeners are the pod's
// work.
func (c config) leftOut() map[string]bool {
	out := make(map[string]bool)
	outbound := false
	for _, l := range c.listeners {
		if !l.internal && !l.outbound && !l.draining && !isInternalListener(l.stat, l.managers) {
			outbound = true // there is another listener to count
		}
	}
	for _, l := range c.listeners {
		if l.internal || l.outbound && outbound {
			out[l.stat] = true
		}
	}
	// Several listeners may share a name.
	for _, l := range c.listeners {
		if !l.internal && (!l.outbound || !outbound) {
			delete(out, l.stat)
		}
	}
	return out
}

// attach adds the managers of each listener in the configuration to the
// statistics.
func (c config) attach(s stats) {
	for _, l := range c.listeners {
		of, found := s.listeners[l.stat]
		if !found {
			continue
		}
		for _, m := range l.managers {
			if _, known := s.managers[m]; known && !slices.Contains(of.managers, m) {
				of.managers = append(of.managers, m)
			}
		}
		s.listeners[l.stat] = of
	}
}

// missing returns an error if the statistics lack a part of what is counted: it
// would be read as zero.
func (c config) missing(s stats, chosen choice, pattern *regexp.Regexp) error {
	const let = "stats_matcher must allow the prefixes `http.` and `listener.`"
	active := 0
	for _, l := range c.listeners {
		if !l.draining {
			active++
		}
	}
	if active > 0 && len(s.listeners) == 0 {
		return fmt.Errorf("the statistics have no listener, though Envoy has %d: %s", active, let)
	}
	leftOut := c.leftOut()
	for _, l := range c.listeners {
		if l.draining {
			continue // its statistics may be gone, with its connections
		}
		listener, manager := !leftOut[l.stat] && !isInternalListener(l.stat, l.managers), func(name string) bool { return !isInternal(name, l.stat) }
		if pattern != nil {
			listener, manager = pattern.MatchString(l.stat), func(name string) bool { return pattern.MatchString(l.stat) || pattern.MatchString(name) }
		}
		if listener && !s.listeners[l.stat].known {
			return fmt.Errorf("the statistics have no listener.%s.downstream_cx_active, though Envoy has the listener %s: %s", l.stat, l.name, let)
		}
		for _, m := range l.managers {
			if (listener || pattern != nil) && manager(m) && !s.managers[m].known {
				return noManager(m, l.name, let)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chosen.listeners)) {
		l := s.listeners[name]
		if !l.known {
			return fmt.Errorf("the statistics have no listener.%s.downstream_cx_active, though they have others of that listener: %s", name, let)
		}
		if !l.knownTotal {
			return fmt.Errorf("the statistics have no listener.%s.downstream_cx_total, which counts new connections: %s", name, let)
		}
		for _, m := range l.managers {
			if !s.managers[m].known {
				return noManager(m, name, let)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chosen.managers)) {
		if chosen.managers[name] && !s.managers[name].knownTotal {
			return fmt.Errorf("the statistics have no http.%s.downstream_rq_total, which counts requests: %s", name, let)
		}
	}
	return nil
}

func noManager(manager, listener, let string) error {
	return fmt.Errorf("the statistics have no http.%s.downstream_rq_active, though listener %s has such a manager: %s", manager, listener, let)
}
