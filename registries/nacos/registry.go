package nacos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lastcall/drain"
)

// Registry is the pod's instances in Nacos. Its methods may be called from
// several goroutines; each ends with its context.
type Registry struct {
	servers []*server
	targets []*target
	owner   string // the pod, in marks
	now     func() time.Time

	mu sync.Mutex // guards what follows, and the changing part of targets
	// first is the server that is asked first: the one that answered last, or
	// that was seen to list the instance.
	first int
	// leaving is set from the first Withdraw to the next Restore: what Find
	// must not undo.
	leaving bool
	// located is set once a server has shown an instance of the pod.
	located bool
	// emptied is why clients that keep the last instances that they knew do not
	// leave the pod; empty: nothing says so.
	emptied string
	// stands is what each server has shown last, and until when that stands.
	stands []standing
	// protected is set once it was logged that unhealthy instances are given out.
	protected bool
}

var (
	_ drain.Registry       = (*Registry)(nil)
	_ drain.Finder         = (*Registry)(nil)
	_ drain.CallLimiter    = (*Registry)(nil)
	_ drain.Locator        = (*Registry)(nil)
	_ drain.GiveUpReporter = (*Registry)(nil)
)

const (
	// atATime is how many instances are dealt with side by side.
	atATime = 8
	// longestChain is how many requests one instance needs at most that wait for
	// each other: two for a login and three for the version, once; then two for
	// the instance, and three for the change, who owns it and the mark.
	longestChain = 10
)

// CallLimit returns how long one call may take: a request to each server, all of
// which may hang, and those that a slow one needs.
func (r *Registry) CallLimit() time.Duration {
	rounds := (len(r.targets) + atATime - 1) / atATime
	return r.servers[0].limit * time.Duration(len(r.servers)+longestChain*rounds)
}

// Located reports whether a server has been seen to hold an instance of the pod
// since the process began.
func (r *Registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.located
}

// Withdraw disables the pod's instances, each with the weight that it has. It
// returns nil when they are disabled, by whomever, or not registered.
//
// An instance that was seen in service within the last minute is disabled by the
// first request; any other is looked at before. What somebody has disabled
// within that minute therefore counts as withdrawn by this pod.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	r.leaving = true
	r.mu.Unlock()
	return r.forTargets(ctx, r.withdraw)
}

func (r *Registry) withdraw(ctx context.Context, s *server, t *target) error {
	if _, err := s.ready(ctx, t.service); err != nil {
		return err
	}
	if h, ok := r.begun(t); ok {
		return r.mark(ctx, s, t, h, mark{})
	}
	if h, ok := r.recent(t); ok {
		if found, err := r.setEnabled(ctx, s, t, h, false); err != nil {
			return err
		} else if found {
			return r.mark(ctx, s, t, h, mark{})
		}
		// It is not as it was: the long way shows how.
	}
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	before, marked := markOf(h)
	if !enabled && !marked && !r.wasTried(t) {
		return nil // somebody else's will, which Restore must not undo
	}
	r.setTried(t, true)
	r.mu.Lock()
	t.owner = nil // it may have registered anew since
	r.mu.Unlock()
	if enabled {
		if found, err := r.setEnabled(ctx, s, t, h, false); err != nil || !found {
			return err
		}
	}
	return r.mark(ctx, s, t, h, before)
}

// mark marks the instance as withdrawn by this pod, if before is not that.
func (r *Registry) mark(ctx context.Context, s *server, t *target, h host, before mark) error {
	r.mu.Lock()
	now := t.owner
	r.mu.Unlock()
	if now == nil {
		m, err := r.currentMark(ctx, s, t)
		if err != nil {
			return err
		}
		now = &m
		r.mu.Lock()
		t.owner = now
		r.mu.Unlock()
	}
	if before != *now {
		if err := s.setMark(ctx, t, r.naming(t), h, now.String()); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.unmarked, t.owner = false, nil
	return nil
}

// currentMark is the mark of a withdrawal of the present registration.
func (r *Registry) currentMark(ctx context.Context, s *server, t *target) (mark, error) {
	if _, marks := s.known(); marks == no {
		return mark{pod: r.owner}, nil
	}
	connection, err := s.connection(ctx, t, r.naming(t))
	return mark{r.owner, connection}, err
}

// Restore enables the instances that Withdraw has disabled: in this process, or,
// by their mark, in an earlier one. Where a server cannot mark instances, it
// enables whatever is disabled. An instance that is not registered now is enabled
// by Find when it comes back.
func (r *Registry) Restore(ctx context.Context) error {
	r.mu.Lock()
	r.leaving, r.emptied, r.protected = false, "", false
	r.mu.Unlock()
	return r.forTargets(ctx, r.restore)
}

func (r *Registry) restore(ctx context.Context, s *server, t *target) error {
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	_, marked := markOf(h)
	tried := r.wasTried(t)
	if !enabled && !marked && !tried {
		can, err := s.canMark(ctx, t)
		if err != nil || can {
			return err // not marked: somebody else has disabled it
		}
	}
	// A call that was cut off may yet take effect, so an instance that looks
	// enabled is enabled too.
	if tried || !enabled {
		if found, err := r.setEnabled(ctx, s, t, h, true); err != nil || !found {
			return err
		}
	}
	if marked {
		if err := s.setMark(ctx, t, r.naming(t), h, ""); err != nil {
			return err
		}
	}
	r.setTried(t, false)
	return nil
}

// Deregister deletes the instances that heartbeats keep, or that are kept for
// good. An instance of a gRPC connection cannot be deleted by anybody else: it
// goes with the connection, and stays withdrawn until then. So does what is
// withdrawn, for a minute: Find of the next pod with this address clears it.
func (r *Registry) Deregister(ctx context.Context) error { return r.forTargets(ctx, r.deregister) }

func (r *Registry) deregister(ctx context.Context, s *server, t *target) error {
	if _, err := s.ready(ctx, t.service); err != nil {
		return err
	}
	// Who owns it is asked at the same time: there may be little left.
	asked := r.naming(t)
	var connection string
	var unsaid error
	var running sync.WaitGroup
	running.Go(func() { connection, unsaid = s.connection(ctx, t, asked) })
	h, _, found, err := r.look(ctx, s, t)
	running.Wait()
	if err != nil || !found {
		return err
	}
	as := r.naming(t)
	if as != asked {
		connection, unsaid = s.connection(ctx, t, as)
	}
	if unsaid != nil || connection != "" {
		return unsaid
	}
	if err := s.remove(ctx, t, as, h.Ephemeral == nil || *h.Ephemeral); err != nil || h.Ephemeral != nil {
		return err
	}
	// The answers have not said which kind it is; the wrong kind is ignored.
	if _, found, err := s.detail(ctx, t, as); err != nil || !found {
		return err
	}
	return s.remove(ctx, t, as, false)
}

// forTargets runs f for the targets, some at a time, each at one server after the
// other until f succeeds. Each error begins with the server's URL. What f has
// done at a server that failed later is gone on with at the next, or by the next
// call, which begins with another server.
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

// order is the order in which servers are asked: from the first on, and those
// that did not answer last time at the end.
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
	// What those say that are not merely down comes first: it is what to act on.
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

func (r *Registry) isLeaving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaving
}
