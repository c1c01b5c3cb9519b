package nacos

import (
	"context"
	"sync"
	"time"

	"lastcall/drain"
)

// Registry is the pod's instances in Nacos. Its methods are safe for concurrent
// use; each ends with its context.
type Registry struct {
	servers []*server
	targets []*target
	owner   string // the pod, as written in marks
	now     func() time.Time
	service drain.Service // what the sidecar registers, if it does so

	mu sync.Mutex // guards what follows, and the changing part of targets
	// first is the index of the server that is queried first: the one that
	// answered last, or that was seen to list the instance.
	first int
	// draining is true from the first Withdraw until the next Restore. Find must
	// not undo that withdrawal.
	draining bool
	// located is set once a server has shown an instance of the pod.
	located bool
	// emptied is the reason why clients that keep their last known instances do
	// not stop using the pod; empty if there is none.
	emptied string
	// stands is the last result of each server, and until when it is valid.
	stands []standing
	// protected is set once it was logged that clients get unhealthy instances.
	protected bool
}

var (
	_ drain.Registry       = (*Registry)(nil)
	_ drain.Finder         = (*Registry)(nil)
	_ drain.CallLimiter    = (*Registry)(nil)
	_ drain.Locator        = (*Registry)(nil)
	_ drain.GiveUpReporter = (*Registry)(nil)
	_ drain.Lister         = (*Registry)(nil)
	_ drain.Registrar      = (*Registry)(nil)
)

const (
	// atATime is how many instances are processed concurrently.
	atATime = 8
	// longestChain is the maximum number of sequential requests for one
	// instance: two for a login and three for the version, once; then two for
	// the instance, and three for the change, its owner and the mark.
	longestChain = 10
)

// CallLimit returns how long one call may take: one request to each server, if
// all of them hang, and the requests that a slow server needs.
func (r *Registry) CallLimit() time.Duration {
	rounds := (len(r.targets) + atATime - 1) / atATime
	return r.servers[0].limit * time.Duration(len(r.servers)+longestChain*rounds)
}

// Located reports whether a server has been seen to hold an instance of the pod
// since the process started.
func (r *Registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.located
}

// Withdraw disables the pod's instances, each with its present weight. It
// returns nil if they are disabled, no matter by whom, or not registered.
//
// An instance that was seen in service within the last minute is disabled by
// the first request; any other is read first. An instance that somebody else
// has disabled within that minute therefore counts as withdrawn by this pod.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	r.draining = true
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
		// The instance has changed: reading it, below, shows how.
	}
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	before, hasMark := markOf(h)
	if !enabled && !hasMark && !r.wasTried(t) {
		return nil // somebody else has disabled it; Restore must not undo that
	}
	r.setTried(t, true)
	r.mu.Lock()
	t.owner = nil // it may have been registered again since
	r.mu.Unlock()
	if enabled {
		if found, err := r.setEnabled(ctx, s, t, h, false); err != nil || !found {
			return err
		}
	}
	return r.mark(ctx, s, t, h, before)
}

// mark marks the instance as withdrawn by this pod, unless before is already
// that mark.
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

// currentMark returns the mark for a withdrawal of the present registration.
func (r *Registry) currentMark(ctx context.Context, s *server, t *target) (mark, error) {
	if _, marks := s.known(); marks == no {
		return mark{pod: r.owner}, nil
	}
	connection, err := s.connection(ctx, t, r.naming(t))
	return mark{r.owner, connection}, err
}

// Restore enables the instances that Withdraw disabled: in this process, or, as
// their mark shows, in an earlier one. If a server cannot mark instances,
// Restore enables every disabled instance of the pod. An instance that is not
// registered now is enabled by Find when it comes back.
func (r *Registry) Restore(ctx context.Context) error {
	r.mu.Lock()
	r.draining, r.emptied, r.protected = false, "", false
	r.mu.Unlock()
	return r.forTargets(ctx, r.restore)
}

func (r *Registry) restore(ctx context.Context, s *server, t *target) error {
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	_, hasMark := markOf(h)
	tried := r.wasTried(t)
	if !enabled && !hasMark && !tried {
		can, err := s.canMark(ctx, t)
		if err != nil || can {
			return err // no mark: somebody else has disabled it
		}
	}
	// A call that was cut off may still take effect later, so an instance that
	// looks enabled is enabled too.
	if tried || !enabled {
		if found, err := r.setEnabled(ctx, s, t, h, true); err != nil || !found {
			return err
		}
	}
	if hasMark {
		if err := s.setMark(ctx, t, r.naming(t), h, ""); err != nil {
			return err
		}
	}
	r.setTried(t, false)
	return nil
}

// Deregister deletes instances that heartbeats keep alive, and persistent ones.
// An instance of a gRPC connection can be deleted only by its client: it
// disappears with the connection, and stays withdrawn until then. The
// withdrawal outlives a deleted instance by a minute; Find of the next pod with
// this address clears it.
func (r *Registry) Deregister(ctx context.Context) error { return r.forTargets(ctx, r.deregister) }

func (r *Registry) deregister(ctx context.Context, s *server, t *target) error {
	if _, err := s.ready(ctx, t.service); err != nil {
		return err
	}
	// The owner is read concurrently: there may be little time left.
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
	// The answers do not show the kind of the instance. A deletion of the wrong
	// kind is ignored.
	if _, found, err := s.detail(ctx, t, as); err != nil || !found {
		return err
	}
	return s.remove(ctx, t, as, false)
}

func (r *Registry) isLeaving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}
