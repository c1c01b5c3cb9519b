package nacos

import (
	"context"
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
	service drain.Service // what the sidecar registers, where it does

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
	_ drain.Lister         = (*Registry)(nil)
	_ drain.Registrar      = (*Registry)(nil)
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
	t.owner = nil // it may have registered again since
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

func (r *Registry) isLeaving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaving
}
