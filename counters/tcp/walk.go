package tcp

import "time"

const (
	// settling is how long a new connection may be missing from the kernel's
	// table. The kernel counts a connection first, and enters it right after
	// that.
	settling = 100 * time.Millisecond
	// walkEvery is the maximum time between two walks through the table.
	walkEvery = time.Second
	// fewEnough is the maximum number of connections that are checked one by
	// one. A walk through the table costs at least as much as checking some
	// hundred of them.
	fewEnough = 1000
)

// walk is the result of the last walk through the kernel's table. The table is
// that of the whole node: most of it is empty, and most entries belong to other
// pods. While no connection is made in the pod, another walk would find the
// same.
type walk struct {
	accepted func() (uint64, error) // returns how many connections were ever made to the pod

	count  uint64
	since  time.Time  // since when count is known to have this value; zero: it is not known
	before time.Time  // when the last walk began; zero: there was none, or it was not completed
	ids    []identity // what the walk has found, if that was few enough
	many   bool       // it was too many
}

// sure reports whether the app's connections are those that the last walk has
// found, or a part of them.
func (w *walk) sure(now time.Time) bool {
	return w.unchanged(now) && !w.many && now.Sub(w.before) < walkEvery
}

// unchanged reports whether no connection was made since the last walk.
func (w *walk) unchanged(now time.Time) bool {
	count, err := w.accepted()
	if err != nil {
		w.since = time.Time{}
		return false
	}
	if count != w.count || w.since.IsZero() {
		w.count, w.since = count, now
	}
	return !w.before.IsZero() && w.before.Sub(w.since) >= settling
}

// begin begins a walk.
func (w *walk) begin() { w.before, w.ids, w.many = time.Time{}, w.ids[:0], false }

// found records a connection that the walk has found.
func (w *walk) found(s *socket) {
	if len(w.ids) == fewEnough {
		w.many = true
		return
	}
	w.ids = append(w.ids, s.id)
}

// end ends the walk that began at began.
func (w *walk) end(began time.Time) { w.before = began }

// again returns those connections of the last walk that are still known.
func (w *walk) again(known map[uint64]*memory) []identity {
	n := 0
	for _, id := range w.ids {
		if _, still := known[id.cookie()]; still {
			w.ids[n] = id
			n++
		}
	}
	w.ids = w.ids[:n]
	return w.ids
}
