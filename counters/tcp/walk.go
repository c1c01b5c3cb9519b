package tcp

import "time"

const (
	// settling is how long after a connection was made it may not yet be in
	// the kernel's table. The kernel counts it first, and enters it at once.
	settling = 100 * time.Millisecond
	// walkEvery is how often the table is gone through in any case.
	walkEvery = time.Second
	// fewEnough are as many connections as are looked at one by one. To go
	// through the table costs as much as some hundred of them at least.
	fewEnough = 1000
)

// walk is what the last walk through the kernel's table has found. The table
// is that of the node, most of it empty and most of what is in it foreign;
// while no connection is made in the pod, the walk would find the same.
type walk struct {
	accepted func() (uint64, error) // tells how many connections were ever made to the pod

	count  uint64
	since  time.Time  // since when the count is known to be that; zero: it is not known
	before time.Time  // when the last walk began; zero: there was none, or it was cut short
	ids    []identity // what it has found, if that was few enough
	many   bool       // it was not
}

// sure reports whether the app's connections are those that the last walk has
// found, or fewer.
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

// found takes in a connection.
func (w *walk) found(s *socket) {
	if len(w.ids) == fewEnough {
		w.many = true
		return
	}
	w.ids = append(w.ids, s.id)
}

// end ends the walk that began at the time began.
func (w *walk) end(began time.Time) { w.before = began }

// again returns those of the connections found that are still known.
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
