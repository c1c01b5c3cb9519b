package nacos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// seen is what a server's list shows of one service.
type seen struct {
	listed    *target // one of the pod's
	host      host    // as it is listed
	others    bool    // somebody else is listed
	protected bool
}

// Withdrawn reports whether no server gives clients an instance of the pod any
// more. Servers that are down serve nobody, nor do those that have been silent
// for half a minute, as long as another answers. It is false without an error as
// soon as one server is seen to list the pod, and that one is asked first from
// then on: the others may not know of the instance yet.
//
// Where the pod's instance is the last of its service, the list is empty now.
// Clients with an empty protection keep the instances that they knew: that is
// not waited for, see GaveUp.
func (r *Registry) Withdrawn(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("no server was asked: %w", err)
	}
	lists := make([]map[service]seen, len(r.servers))
	errs := make([]error, len(r.servers))
	var running sync.WaitGroup
	for i, s := range r.servers {
		running.Go(func() {
			lists[i], errs[i] = r.lists(ctx, s)
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", s.url, errs[i])
			}
		})
	}
	running.Wait()
	answered := false
	for i, all := range lists {
		for _, one := range all {
			if one.listed != nil {
				r.learn(one.listed, one.host)
				r.setFirst(i)
				return false, nil
			}
		}
		answered = answered || errs[i] == nil
	}
	for i, err := range errs {
		if answered && err != nil && (isDown(err) || r.servers[i].isSilent()) {
			errs[i] = nil // it serves nobody
		}
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	r.noteEmptied(lists)
	return true, nil
}

// lists reads the list of each service at a server.
func (r *Registry) lists(ctx context.Context, s *server) (map[service]seen, error) {
	all := map[service]seen{}
	for _, t := range r.targets {
		if _, done := all[t.service]; done {
			continue
		}
		one := seen{}
		l, err := s.list(ctx, t.service, func(h host) {
			own := slices.IndexFunc(r.targets, func(o *target) bool { return o.service == t.service && o.isListed(h) })
			switch {
			case own >= 0:
				one.listed, one.host = r.targets[own], h
			case h.available():
				one.others = true
			}
		})
		if err != nil {
			return all, err
		}
		one.protected = l.protected
		all[t.service] = one
	}
	return all, nil
}

// noteEmptied books, once for each withdrawal, what it means to clients that no
// other instance is left.
func (r *Registry) noteEmptied(lists []map[service]seen) {
	services := map[service]seen{}
	for _, all := range lists {
		for of, one := range all {
			sum := services[of]
			sum.others, sum.protected = sum.others || one.others, sum.protected || one.protected
			services[of] = sum
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leaving || r.emptied != "" {
		return
	}
	var reasons []string
	for _, t := range r.targets {
		switch of := services[t.service]; {
		case !t.tried:
		case !of.others:
			reasons = append(reasons, fmt.Sprintf("%v was the last instance: clients with an empty protection (namingPushEmptyProtection, Dubbo's) go on using it", t))
		case of.protected:
			reasons = append(reasons, fmt.Sprintf("without %v the service's protect threshold is reached: clients are given unhealthy instances too", t))
		}
	}
	r.emptied = strings.Join(reasons, "; ")
	if r.emptied != "" {
		slog.Warn("registry: not all clients will leave the pod", "registry", "nacos", "reason", r.emptied)
	}
}

// GaveUp returns why the present withdrawal cannot reach all clients, although
// Withdrawn reports true; an empty text means that nothing speaks against it.
func (r *Registry) GaveUp() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.emptied
}
