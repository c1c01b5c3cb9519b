package nacos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"lastcall/internal/pace"
)

// seen is what a server's list shows about one service.
type seen struct {
	listed    *target // one of the pod's instances, if listed
	host      host    // as it is listed
	others    bool    // another instance is listed that clients can use
	protected bool
}

// standing is the last result of a server, and until when it is valid.
type standing struct {
	lists map[service]seen
	until time.Time
}

const (
	// smallLists is the total size of a server's lists, in bytes, up to which
	// they are read at any rate: some 400 instances. Larger ones are read less
	// often the larger they are, but at least every longestStand.
	smallLists   = 128 << 10
	longestStand = 5 * time.Second
)

// Withdrawn reports whether no server gives clients an instance of the pod any
// more. Servers that are down serve nobody. Neither do servers that have been
// silent for half a minute, as long as another one answers. Withdrawn returns
// false without an error as soon as one server is seen to list the pod. That
// server is queried first from then on: the others may not know the instance
// yet.
//
// If the pod's instance was the last of its service, the list is now empty.
// Clients with empty protection keep their last known instances. Withdrawn does
// not wait for them, see GaveUp.
func (r *Registry) Withdrawn(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("no server was asked: %w", err)
	}
	lists, errs := r.everywhere(ctx)
	for i, all := range lists {
		for _, one := range all {
			if one.listed != nil {
				r.learn(one.listed, one.host, true)
				r.setFirst(i)
				r.noteEmptied(nil)
				return false, nil
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	r.noteEmptied(lists)
	return true, nil
}

// Listed reports whether every server that serves clients lists each of the
// pod's instances as usable.
func (r *Registry) Listed(ctx context.Context) (listed bool, why string, err error) {
	if err := ctx.Err(); err != nil {
		return false, "", fmt.Errorf("no server was asked: %w", err)
	}
	lists, errs := r.everywhere(ctx)
	if err := errors.Join(errs...); err != nil {
		return false, "", err
	}
	for i, all := range lists {
		for of, one := range all {
			if one.listed == nil {
				return false, fmt.Sprintf("%s lists no instance of the pod that clients can use in %s", r.servers[i].url, of.grouped()), nil
			}
		}
	}
	return true, "", nil
}

// everywhere returns the lists of each server. For a server that is down, or
// that has been silent for half a minute, it returns neither lists nor an
// error, as long as another one answers: these servers serve nobody.
func (r *Registry) everywhere(ctx context.Context) (lists []map[service]seen, errs []error) {
	lists, errs = make([]map[service]seen, len(r.servers)), make([]error, len(r.servers))
	var running sync.WaitGroup
	for i, s := range r.servers {
		running.Go(func() {
			if lists[i], errs[i] = r.listsAt(ctx, i); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", s.url, errs[i])
			}
		})
	}
	running.Wait()
	answered := slices.Contains(errs, nil)
	for i, err := range errs {
		if answered && err != nil && (isDown(err) || r.servers[i].isSilent(silence)) {
			lists[i], errs[i] = nil, nil
		}
	}
	return lists, errs
}

// listsAt returns the lists of a server: the last result, as long as it is
// valid.
func (r *Registry) listsAt(ctx context.Context, i int) (map[service]seen, error) {
	r.mu.Lock()
	if r.stands == nil {
		r.stands = make([]standing, len(r.servers))
	}
	last := r.stands[i]
	r.mu.Unlock()
	if r.now().Before(last.until) {
		return last.lists, nil
	}
	lists, size, err := r.lists(ctx, r.servers[i])
	if err != nil || size <= smallLists {
		return lists, err
	}
	pause := min(time.Second*time.Duration(size/smallLists), longestStand)
	for _, one := range lists {
		if one.listed != nil {
			pause = time.Second // the drain waits for it to disappear
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stands == nil {
		return lists, nil // something was changed meanwhile
	}
	r.stands[i] = standing{lists, r.now().Add(pace.Less(pause))}
	return lists, nil
}

// lookAnew discards the last results, because something was changed.
func (r *Registry) lookAnew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stands = nil
}

// lists reads the list of each service at a server, some of them concurrently.
// It also returns their total size. If one of them shows the pod, the errors of
// the others do not matter.
func (r *Registry) lists(ctx context.Context, s *server) (all map[service]seen, size int, err error) {
	all = map[service]seen{}
	var errs []error
	var mu sync.Mutex
	var running sync.WaitGroup
	free := make(chan struct{}, atATime)
	for n, t := range r.targets {
		if slices.IndexFunc(r.targets, func(o *target) bool { return o.service == t.service }) < n {
			continue
		}
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			one, length, err := r.listed(ctx, s, t.service)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			}
			all[t.service] = one
			size += length
		})
	}
	running.Wait()
	return all, size, errors.Join(errs...)
}

func (r *Registry) listed(ctx context.Context, s *server, of service) (one seen, size int, err error) {
	l, err := s.list(ctx, of, false, func(h host) {
		own := slices.IndexFunc(r.targets, func(o *target) bool { return o.service == of && o.isListed(h) })
		switch {
		case own >= 0:
			one.listed, one.host = r.targets[own], h
		case h.valid():
			one.others = true
		}
	})
	one.protected = l.protected
	return one, l.size, err
}

// noteEmptied records the consequences for clients if no other instance is
// left. lists is what the servers list without the pod; nil if they still list
// it.
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
	r.emptied = ""
	if !r.draining {
		return
	}
	var reasons []string
	for _, t := range r.targets {
		of, known := services[t.service]
		if !t.tried || !known {
			continue
		}
		reason := fmt.Sprintf("it was the last instance of %s that clients can use: clients with empty protection (namingPushEmptyProtection, Dubbo's) go on using it", t.service.grouped())
		if !of.others && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
		if of.others && of.protected && !r.protected {
			r.protected = true
			slog.Warn("registry: without the pod the service reaches its protect threshold, and clients get unhealthy instances too", "registry", "nacos", "service", t.service.grouped())
		}
	}
	r.emptied = strings.Join(reasons, "; ")
}

// GaveUp returns the reason why the present withdrawal may never reach all
// clients, although Withdrawn returns true; empty if there is none.
func (r *Registry) GaveUp() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.emptied
}
