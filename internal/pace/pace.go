// Package pace keeps a server from being asked too much: looks of many pods are
// spread, and a server that says that it is overloaded is asked less.
package pace

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// How long a server is asked nothing that has answered 429 or 503 twice in a
// row or more often: from the first, doubled each time, to the longest. What it
// asks for itself (Retry-After) is kept to, up to longestWish: a pod that leaves
// has no more time.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 4 * time.Second
	longestWish  = 10 * time.Second
)

// Busy is what one server has said of being asked too much. The zero value is
// ready; its methods may be called from several goroutines.
type Busy struct {
	mu     sync.Mutex // guards what follows
	inARow int        // such answers since another one
	until  time.Time  // the server is asked nothing before
	err    error      // the last such answer
}

// Err returns the server's last answer where that was that it is overloaded and
// it is not time to ask again; otherwise nil.
func (b *Busy) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(b.until) {
		return b.err
	}
	return nil
}

// Answered takes in an answer's status and header, and the error that stands for
// it. Only 429 and 503 begin a pause; all others end it.
func (b *Busy) Answered(status int, header http.Header, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		b.inARow, b.until, b.err = 0, time.Time{}, nil
		return
	}
	b.inARow++
	b.err = err
	pause := min(retryAfter(header), longestWish)
	if b.inARow > 1 {
		pause = max(pause, min(firstPause<<min(b.inARow-2, 8), longestPause))
	}
	b.until = time.Now().Add(Less(pause))
}

// retryAfter is how long a server asks to be left alone; 0 where it does not say.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.ParseUint(header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// Less is d less up to a fifth, so that pods that leave together do not ask in
// step.
func Less(d time.Duration) time.Duration { return LessUpTo(d, d/5) }

// LessUpTo is d less up to most.
func LessUpTo(d, most time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(max(most, 0))+1)) //nolint:gosec // spreads load, guards nothing
}
