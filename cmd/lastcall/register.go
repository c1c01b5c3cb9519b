package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lastcall/drain"
	"lastcall/server"
)

// The bounds of what is registered; registries have their own.
const (
	maxServiceName = 128
	maxMetadata    = 64
)

// service returns what the sidecar registers (LASTCALL_REGISTER); nil where the app
// registers itself. The error joins all mistakes.
func (p *process) service() (*drain.Service, error) {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if !p.Register {
		if p.ServiceName != "" || len(p.ServiceMetadata) > 0 {
			wrong("LASTCALL_SERVICE_NAME and LASTCALL_SERVICE_METADATA have no effect without LASTCALL_REGISTER=true: set it, or remove them")
		}
		return nil, errors.Join(mistakes...)
	}
	switch name := p.ServiceName; {
	case name == "":
		wrong("LASTCALL_SERVICE_NAME is not set: set it to the name under which LASTCALL_REGISTER=true registers the app, such as orders")
	case len(name) > maxServiceName || strings.ContainsAny(name, "/\\@:, \t\n"):
		wrong("LASTCALL_SERVICE_NAME=%q: must have %d letters at most, and no slash, backslash, @, colon, comma or space", name, maxServiceName)
	}
	if len(p.Registries) == 0 {
		wrong("LASTCALL_REGISTER=true, and LASTCALL_REGISTRIES names nothing: set it to where the app is registered: any of eureka, consul, nacos")
	}
	if len(p.AppPorts) == 0 {
		wrong("LASTCALL_APP_PORT is not set: set it to the port that LASTCALL_REGISTER=true registers")
	}
	metadata, err := metadata(p.ServiceMetadata)
	return &drain.Service{Name: p.ServiceName, Metadata: metadata}, errors.Join(append(mistakes, err)...)
}

// metadata reads a list of key=value.
func metadata(pairs []string) (map[string]string, error) {
	all := map[string]string{}
	var mistakes []error
	for _, pair := range pairs {
		pair = strings.TrimSpace(pair)
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		_, twice := all[key]
		switch {
		case !ok || key == "":
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_SERVICE_METADATA: %q: must be a list of key=value; a value cannot hold a comma", pair))
		case strings.HasPrefix(key, "lastcall."):
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_SERVICE_METADATA: %q: keys that begin with lastcall. are lastcall's own", key))
		case twice:
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_SERVICE_METADATA names %q twice", key))
		default:
			all[key] = value
		}
	}
	if len(all) > maxMetadata {
		mistakes = append(mistakes, fmt.Errorf("LASTCALL_SERVICE_METADATA holds %d pairs: must be at most %d", len(all), maxMetadata))
	}
	return all, errors.Join(mistakes...)
}

// register has the sidecar register the app in every registry.
func (p *process) register() error {
	var mistakes []error
	for n := range p.drain.Registries {
		r := &p.drain.Registries[n]
		if _, can := r.Registry.(drain.Registrar); !can {
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_REGISTER=true, and LASTCALL_REGISTRIES names %s, in which lastcall cannot register: it can in eureka, consul and nacos", r.Name))
		}
		r.Register = true
	}
	if p.AppReadyURL != "" {
		p.drain.AppReady = server.AppReady(p.AppReadyURL)
	}
	return errors.Join(mistakes...)
}

// registersIn names the registries in which the sidecar registers the app, for the
// log.
func (p *process) registersIn() string {
	names := map[string]bool{}
	for _, r := range p.drain.Registries {
		if r.Register {
			names[r.Name] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}
