package counting

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Request is a client's request.
type Request struct {
	What  string    `json:"what"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"` // when the answer was complete
}

// work records a client's requests.
type work struct {
	mu       sync.Mutex
	requests []*Request
	failures []error
}

// begin records that a request is under way. The returned function records its end.
func (w *work) begin(what string) (end func(error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &Request{What: what, Began: time.Now()}
	w.requests = append(w.requests, r)
	return func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil {
			w.failures = append(w.failures, fmt.Errorf("%s, after %v: %w", what, time.Since(r.Began), err))
		}
		if r.Ended.IsZero() {
			r.Ended = time.Now()
		}
	}
}

// answered returns how many requests were answered.
func (w *work) answered() (n int) {
	for _, r := range w.snapshot() {
		if !r.Ended.IsZero() {
			n++
		}
	}
	return n
}

// open returns the requests that had begun before at and had not ended then.
func (w *work) open(at time.Time) (open []Request) {
	for _, r := range w.snapshot() {
		if r.Began.Before(at) && (r.Ended.IsZero() || r.Ended.After(at)) {
			open = append(open, r)
		}
	}
	return open
}

// lastEnd returns when the last request ended, or the zero time while one is open.
func (w *work) lastEnd() (last time.Time) {
	for _, r := range w.snapshot() {
		if r.Ended.IsZero() {
			return time.Time{}
		}
		if r.Ended.After(last) {
			last = r.Ended
		}
	}
	return last
}

func (w *work) snapshot() (requests []Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		requests = append(requests, *r)
	}
	return requests
}

func (w *work) failed() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]error(nil), w.failures...)
}

// sleep sleeps for d. It returns the context's error if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
