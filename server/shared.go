package server

import (
	"context"
	"sync"
)

// shared makes a value once for all callers that ask for it at the same time.
// A value is never older than the call: who asks while one is being made gets
// the next one, and shares it with all that have asked meanwhile.
type shared[T any] struct {
	produce func(context.Context) T
	// joins gives callers the value that is being made: it is as old as that
	// takes, and no caller waits for more than one.
	joins bool

	mu      sync.Mutex
	current *production[T] // the last that was begun
	next    *production[T] // the one that waits for it to end
}

type production[T any] struct {
	done  chan struct{}
	made  bool // false if it panicked; guarded by done, as is the value
	value T
}

// over reports whether it has ended.
func (p *production[T]) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// get returns the value, and whether there is one: there is none if ctx has
// ended before, or if making it panicked. One caller makes it for the others,
// so it is not cancelled with that caller's ctx; produce must end by itself.
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
