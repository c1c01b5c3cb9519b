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
	// emptied is what this withdrawal means to clients that keep the last
	// instances that they knew; empty: nothing.
	emptied string
}

var (
	_ drain.Registry = (*Registry)(nil)
	_ drain.Finder   = (*Registry)(nil)
)

// CallLimit returns how long one call may take: a request to each server, all of
// which may hang, and those that a good one needs.
func (r *Registry) CallLimit() time.Duration {
	return requestLimit * time.Duration(len(r.servers)+2)
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
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	r.leaving = true
	r.mu.Unlock()
	return r.forTargets(ctx, r.withdraw)
}

func (r *Registry) withdraw(ctx context.Context, s *server, t *target) error {
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	before, marked := markOf(h)
	if !enabled && !marked && !r.wasTried(t) {
		return nil // somebody else's will, which Restore must not undo
	}
	// From here on it may be disabled by this process, whatever is answered.
	r.setTried(t, true)
	as := r.naming(t)
	if enabled {
		if found, err := s.setEnabled(ctx, t, as, h, false); err != nil || !found {
			return err
		}
	}
	now, err := r.currentMark(ctx, s, t)
	if err != nil || marked && before == now {
		return err
	}
	return s.setMark(ctx, t, as, h, now.String())
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
	r.leaving, r.emptied = false, ""
	r.mu.Unlock()
	return r.forTargets(ctx, r.restore)
}

func (r *Registry) restore(ctx context.Context, s *server, t *target) error {
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	_, marked := markOf(h)
	as := r.naming(t)
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
		if found, err := s.setEnabled(ctx, t, as, h, true); err != nil || !found {
			return err
		}
	}
	if marked {
		if err := s.setMark(ctx, t, as, h, ""); err != nil {
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
	h, _, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	as := r.naming(t)
	connection, err := s.connection(ctx, t, as)
	if err != nil || connection != "" {
		return err
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

// forTargets runs f for each target, at one server after the other until f
// succeeds. Each error begins with the server's URL. What f has done at a server
// that failed later is gone on with at the next, or by the next call, which
// begins with another server.
func (r *Registry) forTargets(ctx context.Context, f func(context.Context, *server, *target) error) error {
	var errs []error
	for _, t := range r.targets {
		errs = append(errs, r.atOne(ctx, func(s *server) error { return f(ctx, s, t) }))
	}
	return errors.Join(errs...)
}

func (r *Registry) atOne(ctx context.Context, f func(*server) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("no server was asked: %w", err)
	}
	r.mu.Lock()
	first := r.first
	r.mu.Unlock()
	var errs []error
	for n := range r.servers {
		i := (first + n) % len(r.servers)
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

func (r *Registry) wasTried(t *target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.tried
}

func (r *Registry) setTried(t *target, tried bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.tried = tried
}

func (r *Registry) isLeaving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaving
}
