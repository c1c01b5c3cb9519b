// Package events reports a pod's drain as Kubernetes Events on the pod, which
// `kubectl describe pod` and `kubectl get events` show.
//
// The pod's service account needs permission to create events, and no other. The
// mounted token identifies the pod. While there is nothing to write, the package
// keeps no connection and no goroutine, and almost no memory.
//
// Only the very end of the process waits for calls to the API server, and only for
// a bounded time.
package events

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"lastcall/drain"
)

const (
	// callLimit is how long one call to the API server may take.
	callLimit = 2 * time.Second
	// tryFor is the age up to which an event is retried.
	tryFor = time.Minute
	// firstWait is the wait after a failed call. It doubles up to mostWait, which
	// also limits the Retry-After that the API server may ask for.
	firstWait = 200 * time.Millisecond
	mostWait  = 5 * time.Second
	// forbiddenFor is how long answers of 403 may last before they count as a
	// refusal. An API server that has just started, or a Role that was created
	// together with the pod, may not be effective yet.
	forbiddenFor = 20 * time.Second
	// queueLimit is how many events may wait to be written. If the queue is full,
	// the oldest is dropped: how a drain ended matters more than how it began.
	queueLimit = 32
	// perMinute limits the events per minute. A drain writes three to five. A
	// caller that starts drains and takes them back in a loop must not fill the
	// cluster's store.
	perMinute = 30
)

// Writer writes what it observes as events on the pod. It is a drain.Observer.
type Writer struct {
	cluster cluster
	dial    dial // nil: the system's

	life  context.Context // of all calls; canceled by Flush
	end   context.CancelFunc
	hurry chan struct{} // closed by Flush: calls are retried without waiting

	mu      sync.Mutex
	queue   []*event
	newest  time.Time     // the time in the name of the newest event
	idle    chan struct{} // closed when all events are written or lost; nil while there is nothing to write
	lost    int           // events that were not written
	minute  time.Time     // when the current minute began
	taken   int           // events in the current minute
	failing bool          // writing fails, and this is logged
	// forbidden is when the API server first answered 403. It is zero again once
	// the API server has accepted an event.
	forbidden time.Time
}

// New returns a Writer for the pod that this process is in. It makes no call. Its
// errors say what to fix in the pod's specification.
func New(cfg Config) (*Writer, error) {
	cluster, err := cfg.find()
	if err != nil {
		return nil, err
	}
	w := &Writer{cluster: cluster, hurry: make(chan struct{})}
	w.life, w.end = context.WithCancel(context.Background())
	return w, nil
}

// Observe queues e to be written as an event. It does not block.
func (w *Writer) Observe(e drain.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.minute) >= time.Minute {
		w.minute, w.taken = now, 0
	}
	if w.taken++; w.taken > perMinute {
		w.lost++
		return
	}
	if len(w.queue) == queueLimit {
		w.queue = w.queue[1:]
		w.lost++
	}
	if named := w.newest.Add(1); e.At.Before(named) { // names must differ
		w.newest = named
	} else {
		w.newest = e.At
	}
	w.queue = append(w.queue, newEvent(w.cluster.pod, e, w.newest))
	if w.idle == nil {
		w.idle = make(chan struct{})
		go w.work()
	}
}

// Flush is called once, at the end of the process. It tries each queued event once
// more, without waiting. It returns when all events are written or when ctx ends;
// events not written by then are lost.
func (w *Writer) Flush(ctx context.Context) {
	defer w.end()
	close(w.hurry)
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.lost + len(w.queue)
	if w.idle != nil {
		lost++ // the one being written
	}
	if lost > 0 {
		slog.Warn("events: some were not written", "lost", lost)
	}
}

// work writes the queued events, and ends when the queue is empty. Each work has
// its own client, because the trusted roots may have changed since the last.
func (w *Writer) work() {
	c := newClient(w.cluster, w.dial)
	defer c.close()
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.queue = nil
			close(w.idle)
			w.idle = nil
			w.mu.Unlock()
			return
		}
		e := w.queue[0]
		w.queue = w.queue[1:]
		w.mu.Unlock()
		if !w.write(c, e) {
			w.mu.Lock()
			w.lost++
			w.mu.Unlock()
		}
	}
}

// write writes one event, with retries, and reports whether it was written.
func (w *Writer) write(c *client, e *event) bool {
	until := e.at.Add(tryFor)
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		last := isClosed(w.hurry)
		err := w.call(c, e)
		if err == nil {
			w.written()
			return true
		}
		pause := wait - rand.N(wait/5) //nolint:gosec // spreads load; not for security
		var refused *refusedError
		if errors.As(err, &refused) {
			last = last || refused.final() && !w.mayPass(refused)
			pause = max(pause, min(refused.retryAfter, mostWait))
		}
		last = last || time.Now().Add(pause).After(until)
		w.failed(e, err, last)
		if last {
			return false
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-w.hurry:
		}
		timer.Stop()
	}
}

// call makes one call.
func (w *Writer) call(c *client, e *event) error {
	ctx, cancel := context.WithTimeout(w.life, callLimit)
	defer cancel()
	return c.create(ctx, e)
}

// mayPass reports whether the refusal may be temporary: the API server may not have
// loaded its rules yet. Once 403 has lasted for forbiddenFor, each 403 is final,
// until an event is written.
func (w *Writer) mayPass(refused *refusedError) bool {
	if refused.code != http.StatusForbidden {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.forbidden.IsZero() {
		w.forbidden = time.Now()
	}
	return time.Since(w.forbidden) < forbiddenFor
}

// failed records a failed call, and logs the first of several in a row. A 403 that
// may be temporary is not logged: it is no fault yet.
func (w *Writer) failed(e *event, err error, last bool) {
	var refused *refusedError
	if !last && errors.As(err, &refused) && refused.code == http.StatusForbidden {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failing {
		slog.Warn("events: cannot write one; drains continue without events", "event", e.Reason, "error", err)
	}
	w.failing = true
}

// written records a successful call.
func (w *Writer) written() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failing {
		slog.Info("events: written again")
	}
	w.failing, w.forbidden = false, time.Time{}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
