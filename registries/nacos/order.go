package nacos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// forTargets runs f for the targets, at most atATime concurrently, each at one
// server after the other until f succeeds. Each error begins with the server's
// URL. If a server fails after f has done part of its work there, f continues
// at the next server, or in the next call, which begins with another server.
func (r *Registry) forTargets(ctx context.Context, f func(context.Context, *server, *target) error) error {
	defer r.lookAnew()
	errs := make([]error, len(r.targets))
	var running sync.WaitGroup
	free := make(chan struct{}, atATime)
	for n, t := range r.targets {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			errs[n] = r.atOne(ctx, func(s *server) error { return f(ctx, s, t) })
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// order returns the order in which servers are queried: from the first on.
// Servers that did not answer last time come at the end.
func (r *Registry) order() []int {
	r.mu.Lock()
	first := r.first
	r.mu.Unlock()
	var answer, silent []int
	for n := range r.servers {
		i := (first + n) % len(r.servers)
		if r.servers[i].isSilent(0) {
			silent = append(silent, i)
		} else {
			answer = append(answer, i)
		}
	}
	return append(answer, silent...)
}

func (r *Registry) atOne(ctx context.Context, f func(*server) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("no server was asked: %w", err)
	}
	var errs []error
	for _, i := range r.order() {
		err := f(r.servers[i])
		if err == nil {
			r.setFirst(i)
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", r.servers[i].url, err))
		if ctx.Err() != nil {
			r.setFirst((i + 1) % len(r.servers))
			return errors.Join(errs...)
		}
	}
	// The errors of servers that are not merely down come first: the user can
	// act on them.
	slices.SortStableFunc(errs, func(a, b error) int {
		switch down := isDown(a); {
		case down == isDown(b):
			return 0
		case down:
			return 1
		}
		return -1
	})
	return errors.Join(errs...)
}

func (r *Registry) setFirst(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = i
}
