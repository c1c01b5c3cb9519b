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
)

// plugin is one registry or counter that can be chosen by name.
type plugin[Part any] struct {
	settings any // points to its part of the environment
	make     func(name string, pod drain.Pod) (Part, error)
}

// catalog is all that can be chosen: the only list of plug-ins.
type catalog struct {
	registries map[string]plugin[drain.Announced]
	counters   map[string]plugin[drain.Named]
}

func plugins() catalog {
	return catalog{
		registries: map[string]plugin[drain.Announced]{
			"consul": registry(func(c consul.Config, pod drain.Pod) (drain.Announced, error) {
				r, err := consul.New(c, pod)
				return drain.Announced{Registry: r, ClientRefresh: c.ClientRefresh}, err
			}),
			"eureka": registry(func(c eureka.Config, pod drain.Pod) (drain.Announced, error) {
				r, err := eureka.New(c, pod)
				return drain.Announced{Registry: r, ServerCache: eureka.ServerCache, ClientRefresh: c.ClientRefresh}, err
			}),
		},
		counters: map[string]plugin[drain.Named]{
			"envoy":      counter(envoy.New),
			"file":       counter(func(c file.Config, _ drain.Pod) (*file.Counter, error) { return file.New(c) }),
			"haproxy":    counter(haproxy.New),
			"nginx":      counter(nginx.New),
			"prometheus": counter(func(c prometheus.Config, _ drain.Pod) (*prometheus.Counter, error) { return prometheus.New(c) }),
			"tcp":        counter(func(c tcp.Config, pod drain.Pod) (*tcp.Counter, error) { return tcp.New(c, pod.AppPorts...) }),
		},
	}
}

// registry is a registry with the Config C, which is read from the environment
// before make is called.
func registry[C any](build func(C, drain.Pod) (drain.Announced, error)) plugin[drain.Announced] {
	cfg := new(C)
	return plugin[drain.Announced]{cfg, func(name string, pod drain.Pod) (drain.Announced, error) {
		a, err := build(*cfg, pod)
		a.Name = name
		return a, err
	}}
}

// counter is a counter with the Config C, likewise.
func counter[C any, P drain.Counter](build func(C, drain.Pod) (P, error)) plugin[drain.Named] {
	cfg := new(C)
	return plugin[drain.Named]{cfg, func(name string, pod drain.Pod) (drain.Named, error) {
		c, err := build(*cfg, pod)
		return drain.Named{Name: name, Counter: c}, err
	}}
}

// settings lists every plug-in's part of the environment, registries first.
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
