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

// seen is what a server's list shows of one service.
type seen struct {
	listed    *target // one of the pod's
	host      host    // as it is listed
	others    bool    // somebody else is listed whom clients can use
	protected bool
}

// standing is what a server has shown, and until when that stands.
type standing struct {
	lists map[service]seen
	until time.Time
}

const (
	// smallLists are the lists of a server, in bytes, that are read as often as
	// one likes: those of some 400 instances. Larger ones are read less often the
	// larger they are, every longestStand at least.
	smallLists   = 128 << 10
	longestStand = 5 * time.Second
)

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

// Listed reports whether every server that serves clients lists each of the pod's
// instances as one that they can use.
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

// everywhere returns what each server shows. Servers that are down serve nobody,
// nor do those that have been silent for half a minute, as long as another
// answers: these show nothing, and have no error.
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

// listsAt returns what a server shows: what it has shown last, as long as that
// stands.
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
			pause = time.Second // it is what the drain waits for
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

// lookAnew ends what stands: something was changed.
func (r *Registry) lookAnew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stands = nil
}

// lists reads the list of each service at a server, some at a time, and returns
// their size as well. One that shows the pod decides: the others may fail.
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

// noteEmptied books what it means to clients that no other instance is left, by
// what the servers list without the pod; nil: they list it.
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
	if !r.leaving {
		return
	}
	var reasons []string
	for _, t := range r.targets {
		of, known := services[t.service]
		if !t.tried || !known {
			continue
		}
		reason := fmt.Sprintf("it was the last instance of %s that clients can use: those with an empty protection (namingPushEmptyProtection, Dubbo's) go on using it", t.service.grouped())
		if !of.others && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
		if of.others && of.protected && !r.protected {
			r.protected = true
			slog.Warn("registry: without the pod the service's protect threshold is reached, and clients are given unhealthy instances too", "registry", "nacos", "service", t.service.grouped())
		}
	}
	r.emptied = strings.Join(reasons, "; ")
}

// GaveUp returns why the present withdrawal may never reach all clients, although
// Withdrawn reports true; an empty text means that nothing speaks against it.
func (r *Registry) GaveUp() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.emptied
}
