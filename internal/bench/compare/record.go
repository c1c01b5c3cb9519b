package compare

import (
	"sync"
	"time"
)

// span is the time of one request, from its arrival until its answer was sent.
type span struct{ from, to time.Time } // to is zero while it is in flight

// record lists an app's requests and their times. It is the app's own data,
// independent of anything that counts from outside.
type record struct {
	mu    sync.Mutex
	spans map[int]span
	// arrived receives a value when a request arrives.
	arrived chan struct{}
}

func newRecord() *record {
	return &record{spans: map[int]span{}, arrived: make(chan struct{}, 1)}
}

func (r *record) began(id int, at time.Time) {
	r.mu.Lock()
	r.spans[id] = span{from: at}
	r.mu.Unlock()
	select {
	case r.arrived <- struct{}{}:
	default: // there is a value that was not received yet
	}
}

func (r *record) ended(id int, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.spans[id]
	s.to = at
	r.spans[id] = s
}

// lastWork returns the last moment, up to limit, at which a request was in flight,
// or zero if there was none.
func (r *record) lastWork(limit time.Time) (last time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.from.After(limit) {
			continue
		}
		end := s.to
		if end.IsZero() || end.After(limit) {
			end = limit
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}
