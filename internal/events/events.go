// Package events tells of the pod's leaving where people look first: in
// Kubernetes Events on the pod, which `kubectl describe pod` and `kubectl get
// events` show.
//
// The pod's service account must be allowed to create events, and nothing
// else; the mounted token says which pod this is. While nothing happens there
// is no connection, no goroutine, and next to no memory.
//
// Nobody waits for a call to the API server but the very end of the process,
// and that for a bounded time.
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
	// tryFor is how old an event may be when it is tried again.
	tryFor = time.Minute
	// firstWait is the wait after a failed call; it doubles up to mostWait,
	// which also bounds what the API server may ask for.
	firstWait = 200 * time.Millisecond
	mostWait  = 5 * time.Second
	// forbiddenFor is how long answers of 403 may last before they count as a
	// refusal. An API server that has just started, or a Role that was created
	// together with the pod, is not in force yet.
	forbiddenFor = 20 * time.Second
	// queueLimit is how many events may wait to be written. The oldest makes
	// room: how a drain ended is worth more than how it began.
	queueLimit = 32
	// perMinute is how many events are written in a minute. A drain makes
	// three to five; whoever begins drains and takes them back in a loop must
	// not fill the cluster's store.
	perMinute = 30
)

// Writer writes what it observes as events on the pod. It is a drain.Observer.
type Writer struct {
	cluster cluster
	dial    dial // nil: as the system does

	life  context.Context // of all calls; ends with Flush
	end   context.CancelFunc
	hurry chan struct{} // closed by Flush: no more waiting between calls

	mu      sync.Mutex
	queue   []*event
	newest  time.Time     // the time that the newest event is named by
	idle    chan struct{} // closed when all is written or lost; nil while there is nothing to write
	lost    int           // events that were not written
	minute  time.Time     // when the present minute began
	taken   int           // events in it
	failing bool          // events cannot be written, and the log says so
	// forbidden is when the API server first answered 403; zero once it has
	// taken an event.
	forbidden time.Time
}

// New returns a Writer for the pod that this process is in. It makes no call.
// The mistakes that it returns say what to mend in the pod's specification.
func New(cfg Config) (*Writer, error) {
	cluster, err := cfg.find()
	if err != nil {
		return nil, err
	}
	w := &Writer{cluster: cluster, hurry: make(chan struct{})}
	w.life, w.end = context.WithCancel(context.Background())
	return w, nil
}

// Observe has e written as an event. It does not block.
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
	if named := w.newest.Add(1); e.At.Before(named) { // no two of the same name
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

// Flush is for the end of the process: what waits to be written has one more
// try, at once. It returns when all is written, or when ctx ends; what is not
// written then is lost. It is to be called once.
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
		lost++ // the one under way
	}
	if lost > 0 {
		slog.Warn("events: not all were written", "lost", lost)
	}
}

// work writes what is in the queue, and ends when that is empty. Its client
// lives no longer: the trusted roots may have changed by the next time.
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

// write writes one event, with retries, and reports whether it is written.
func (w *Writer) write(c *client, e *event) bool {
	until := e.at.Add(tryFor)
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		last := isClosed(w.hurry)
		err := w.call(c, e)
		if err == nil {
			w.written()
			return true
		}
		pause := wait - rand.N(wait/5) //nolint:gosec // spreads load, guards nothing
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

// mayPass reports whether a refusal may be one of an API server that has not
// loaded its rules yet. Once 403 has lasted for forbiddenFor it is believed at
// once, until an event is written.
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

// failed books a call that failed, and logs the first of a row. A 403 that may
// pass is not logged: it is no fault yet.
func (w *Writer) failed(e *event, err error, last bool) {
	var refused *refusedError
	if !last && errors.As(err, &refused) && refused.code == http.StatusForbidden {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failing {
		slog.Warn("events: cannot write one; drains go on without", "event", e.Reason, "error", err)
	}
	w.failing = true
}

// written books a call that succeeded.
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
