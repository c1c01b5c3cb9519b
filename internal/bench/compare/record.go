package compare

import (
	"sync"
	"time"
)

// span is one piece of work, from its arrival until its answer was sent.
type span struct{ from, to time.Time } // to is zero while it is in flight

// record is what an app worked on, and when. It is the app's own account, and
// owes nothing to anything that counts from outside.
type record struct {
	mu    sync.Mutex
	spans map[int]span
	// arrived receives when a request has.
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
	default: // one that has not been taken yet says the same
	}
}

func (r *record) ended(id int, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.spans[id]
	s.to = at
	r.spans[id] = s
}

// lastWork is the last moment, up to limit, at which anything was in flight;
// zero when nothing ever was.
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
