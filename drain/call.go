package drain

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// guard calls a plug-in. A plug-in that panics has failed; it must not take
// the pod's hook with it.
func guard(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked, please report it: %v", what, p)
		}
	}()
	return f()
}

// backoff is the wait between tries: it doubles from first to most, less up
// to a fifth, so that pods that leave together do not try in step.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) wait() time.Duration {
	b.next = min(max(2*b.next, b.first), b.most)
	return b.next - time.Duration(rand.Int64N(int64(b.next)/5+1)) //nolint:gosec // spreads load, guards nothing
}

// pause waits for d, or until changed receives or ctx ends. A negative d waits
// for changed alone.
func pause(ctx context.Context, d time.Duration, changed <-chan struct{}) {
	var over <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-over:
	}
}

// notify makes a channel of capacity 1 receive, once for any number of calls.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
