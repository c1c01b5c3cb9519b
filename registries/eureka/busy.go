package eureka

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// How long a server is asked nothing that has answered 429 or 503 twice in a
// row or more often: from the first, doubled each time, to the longest. What it
// asks for itself (Retry-After) is kept to, as far as the longest wish: a pod
// that leaves has no more time.
const (
	firstPause  = 250 * time.Millisecond
	longestStop = 4 * time.Second
	longestWish = 10 * time.Second
)

// busy is what a server has said of being asked too much.
type busy struct {
	inARow int       // such answers since another one
	until  time.Time // it is asked nothing before
	err    error     // the last such answer
}

// spared returns the server's last answer where that was that it has too much
// to do, and asked to be left alone until now. A cancellation is sent all the
// same: it is the last call, and there may be no time for another.
func (p *peer) spared(method, path string) error {
	if method == http.MethodDelete && !strings.Contains(path, "/status") {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.busy.until) {
		return p.busy.err
	}
	return nil
}

// answered takes in how a call has ended.
func (p *peer) answered(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := (*statusError)(nil)
	if err != nil && !errors.As(err, &status) {
		return // no answer says nothing of it
	}
	if err == nil || status.code != http.StatusTooManyRequests && status.code != http.StatusServiceUnavailable {
		p.busy = busy{}
		return
	}
	p.busy.inARow++
	p.busy.err = err
	pause := min(status.after, longestWish)
	if p.busy.inARow > 1 {
		pause = max(pause, min(firstPause<<min(p.busy.inARow-2, 8), longestStop))
	}
	p.busy.until = time.Now().Add(less(pause))
}
