package server

import (
	"context"
	"sync"
)

// shared produces a value once for all callers that ask for it at the same
// time. Its production never begins before the call: a caller that asks during
// a production gets the value of the next one, and shares it with all that have
// asked meanwhile.
type shared[T any] struct {
	produce func(context.Context) T
	// joins gives callers the value that is being produced. That value may be
	// older than the call by the time that producing it takes, but no caller
	// waits for more than one production.
	joins bool

	mu      sync.Mutex
	current *production[T] // the last one that was begun
	next    *production[T] // the one that begins when current ends
}

type production[T any] struct {
	done  chan struct{}
	made  bool // false if produce panicked; like value, read only after done is closed
	value T
}

// over reports whether the production has ended.
func (p *production[T]) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// get returns the value, and whether there is one. There is none if ctx ends
// first, or if produce panics. One caller produces the value for the others, so
// produce is not cancelled with that caller's ctx; it must end on its own.
func (s *shared[T]) get(ctx context.Context) (value T, ok bool) {
	s.mu.Lock()
	p, before := s.next, s.current
	if s.joins && p == nil && before != nil && !before.over() {
		p = before
	}
	joins := p != nil
	if !joins {
		p = &production[T]{done: make(chan struct{})}
		s.next = p
	}
	s.mu.Unlock()
	if joins {
		select {
		case <-p.done:
			return p.value, p.made
		case <-ctx.Done():
			return value, false
		}
	}
	if before != nil {
		<-before.done
	}
	s.mu.Lock()
	s.current, s.next = p, nil
	s.mu.Unlock()
	defer close(p.done)
	p.value = s.produce(context.WithoutCancel(ctx))
	p.made = true
	return p.value, true
}
