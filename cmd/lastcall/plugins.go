package main

import (
	"maps"
	"slices"

	"lastcall/counters/envoy"
	"lastcall/counters/file"
	"lastcall/counters/haproxy"
	"lastcall/counters/nginx"
	"lastcall/counters/prometheus"
	"lastcall/counters/tcp"
	"lastcall/drain"
	"lastcall/registries/consul"
	"lastcall/registries/eureka"
	"lastcall/registries/nacos"
	"lastcall/registries/steps"
)

// plugin is a registry or a counter that can be chosen by its name.
type plugin[Part any] struct {
	settings any // points to its part of the environment
	make     func(name string, pod drain.Pod) (Part, error)
}

// catalog holds every plug-in that can be chosen. It is the only list of them.
type catalog struct {
	registries map[string]plugin[drain.NamedRegistry]
	counters   map[string]plugin[drain.NamedCounter]
}

// Of the presets of steps, only those that are wanted are read, see steps.Presets.
func plugins(wanted func(preset string) bool) catalog {
	c := catalog{
		registries: map[string]plugin[drain.NamedRegistry]{
			"consul": registry(func(c consul.Config, pod drain.Pod) (drain.NamedRegistry, error) {
				r, err := consul.New(c, pod)
				return drain.NamedRegistry{Registry: r, ClientRefresh: c.ClientRefresh}, err
			}),
			"eureka": registry(func(c eureka.Config, pod drain.Pod) (drain.NamedRegistry, error) {
				r, err := eureka.New(c, pod)
				return drain.NamedRegistry{Registry: r, ServerCache: eureka.ServerCache, ClientRefresh: c.ClientRefresh}, err
			}),
			"nacos": registry(func(c nacos.Config, pod drain.Pod) (drain.NamedRegistry, error) {
				r, err := nacos.New(c, pod)
				return drain.NamedRegistry{Registry: r, ClientRefresh: c.ClientRefresh}, err
			}),
			"steps": registry(func(c steps.Config, pod drain.Pod) (drain.NamedRegistry, error) {
				r, err := steps.New(c, pod)
				return drain.NamedRegistry{Registry: r, ClientRefresh: c.ClientRefresh}, err
			}),
		},
		counters: map[string]plugin[drain.NamedCounter]{
			"envoy":   counter(envoy.New),
			"file":    counter(func(c file.Config, _ drain.Pod) (*file.Counter, error) { return file.New(c) }),
			"haproxy": counter(haproxy.New),
			"nginx":   counter(nginx.New),
			"prometheus": counter(func(c prometheus.Config, pod drain.Pod) (*prometheus.Counter, error) {
				return prometheus.New(c, pod, openConnections(pod))
			}),
			"tcp": counter(func(c tcp.Config, pod drain.Pod) (*tcp.Counter, error) { return tcp.New(c, pod.AppPorts...) }),
		},
	}
	for _, preset := range steps.Presets(wanted) {
		c.registries[preset.Name] = plugin[drain.NamedRegistry]{preset.Settings, func(name string, pod drain.Pod) (drain.NamedRegistry, error) {
			a, err := preset.New(pod)
			a.Name = name
			return a, err
		}}
	}
	return c
}

// registry makes a plugin of a registry with the configuration C, which is read
// from the environment before make is called.
func registry[C any](build func(C, drain.Pod) (drain.NamedRegistry, error)) plugin[drain.NamedRegistry] {
	cfg := new(C)
	return plugin[drain.NamedRegistry]{cfg, func(name string, pod drain.Pod) (drain.NamedRegistry, error) {
		a, err := build(*cfg, pod)
		a.Name = name
		return a, err
	}}
}

// counter makes a plugin of a counter with the configuration C, likewise.
func counter[C any, P drain.Counter](build func(C, drain.Pod) (P, error)) plugin[drain.NamedCounter] {
	cfg := new(C)
	return plugin[drain.NamedCounter]{cfg, func(name string, pod drain.Pod) (drain.NamedCounter, error) {
		c, err := build(*cfg, pod)
		return drain.NamedCounter{Name: name, Counter: c}, err
	}}
}

// settings returns every plug-in's part of the environment, registries first.
func (c catalog) settings() []any {
	var all []any
	for _, name := range sorted(c.registries) {
		all = append(all, c.registries[name].settings)
	}
	for _, name := range sorted(c.counters) {
		all = append(all, c.counters[name].settings)
	}
	return all
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// openConnections returns a counter of the app's open connections, for counters
// whose source shows nothing before the first request. It is nil if the app's
// ports are not known.
func openConnections(pod drain.Pod) drain.Counter {
	c, err := tcp.New(tcp.Config{Count: tcp.Open}, pod.AppPorts...)
	if err != nil {
		return nil // LASTCALL_APP_PORT is not set, or is wrong, which check reports
	}
	return c
}

// arrivalsName is the name of the counter that withArrivals adds.
const arrivalsName = "arrivals"

// withArrivals adds a counter of arrivals at the app's ports, which counts no
// work, if one of the counters does not see requests arrive. If no port is known,
// it returns the names of those counters instead.
func withArrivals(counters []drain.NamedCounter, ports []int) (all []drain.NamedCounter, blind []string) {
	for _, c := range counters {
		if _, sees := c.Counter.(*tcp.Counter); sees {
			return counters, nil // the connections of all ports are counted already
		}
		if r, ok := c.Counter.(drain.ArrivalReporter); ok && !r.ReportsArrivals() {
			blind = append(blind, c.Name)
		}
	}
	if len(blind) == 0 {
		return counters, nil
	}
	arrivals, err := tcp.NewArrivals(ports...)
	if err != nil {
		return counters, blind // likewise
	}
	return append(counters, drain.NamedCounter{Name: arrivalsName, Counter: arrivals}), nil
}
