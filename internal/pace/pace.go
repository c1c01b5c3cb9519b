// Package pace limits the load on a server: requests of many pods are spread over
// time, and an overloaded server gets fewer requests.
package pace

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Pauses for a server that answers 429 or 503. From the second such answer in a
// row, the pause is firstPause, then doubles with each answer up to longestPause. A
// longer Retry-After is respected up to longestWish, because a pod that is being
// deleted has no more time.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 4 * time.Second
	longestWish  = 10 * time.Second
)

// Busy records whether a server is overloaded. The zero value is ready to use. Its
// methods may be called by several goroutines.
type Busy struct {
	mu     sync.Mutex // guards what follows
	inARow int        // number of such answers in a row
	until  time.Time  // no requests before this time
	err    error      // the last such answer
}

// Err returns the server's last answer if it reported overload and the pause is not
// over yet, otherwise nil.
func (b *Busy) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(b.until) {
		return b.err
	}
	return nil
}

// Answered records the status and header of an answer, and the error that Err then
// returns. Only 429 and 503 begin a pause; every other status ends it.
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

// retryAfter returns the value of the Retry-After header, or 0 if it is missing.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.ParseUint(header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// Less returns d, shortened at random by up to a fifth, so that pods that drain
// together do not send requests at the same moments.
func Less(d time.Duration) time.Duration { return LessUpTo(d, d/5) }

// LessUpTo returns d, shortened at random by up to most.
func LessUpTo(d, most time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(max(most, 0))+1)) //nolint:gosec // spreads load; not for security
}
