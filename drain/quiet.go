package drain

import "time"

// quiet reports for how long nothing has been in flight and nothing has arrived.
// The zero value, with its two settings, has seen nothing yet.
type quiet struct {
	span      time.Duration // how long it must have been quiet
	threshold int64         // what may be in flight all the same

	since   time.Time // since when it has been quiet; zero: it is not
	calm    time.Time // since when nothing has arrived, whatever was in flight; zero: no look yet
	arrived []uint64  // of each counter, at the last look
	sum     int64     // of all counters, at the last look
	changed time.Time // when a look last differed from the one before it
}

// look takes one round in, whose last reading ended at now, and reports whether
// it has been quiet for the span. A counter that cannot be read is not quiet.
func (q *quiet) look(r round, now time.Time) bool {
	sum, known := inFlight(r.samples)
	arrival := q.arrival(r.samples)
	if arrival || q.calm.IsZero() {
		q.calm = now
	}
	if arrival || sum != q.sum || q.changed.IsZero() {
		q.sum, q.changed = sum, now
	}
	switch {
	case !known || sum > q.threshold:
		q.since = time.Time{}
	case arrival || q.since.IsZero():
		q.since = now
	case r.began.Sub(q.since) >= q.span:
		return true
	}
	return q.span <= 0 && !q.since.IsZero()
}

// nobody reports whether a round proves that nobody is about to send again: no
// connection is open on which somebody could, and nothing has arrived on a new
// one for the span, in whatever phase. Every counter must know both.
func (q *quiet) nobody(r round) bool {
	sum, known := inFlight(r.samples)
	return known && sum <= q.threshold && allClosed(r.samples) && !q.calm.IsZero() && r.began.Sub(q.calm) >= q.span
}

// allClosed reports whether every counter knows that no connection is open.
// With no counter, nobody knows.
func allClosed(samples []sample) bool {
	for _, s := range samples {
		if s.err != nil || !s.HasOpen || s.Open != 0 || !s.HasArrived {
			return false
		}
	}
	return len(samples) > 0
}

// arrival reports whether anything has arrived since the last look. A counter
// that started anew, with a smaller number, may have missed something.
func (q *quiet) arrival(samples []sample) bool {
	first := q.arrived == nil
	if first {
		q.arrived = make([]uint64, len(samples))
	}
	came := false
	for i, s := range samples {
		if s.err != nil || !s.HasArrived {
			continue
		}
		came = came || !first && s.Arrived != q.arrived[i]
		q.arrived[i] = s.Arrived
	}
	return came
}

// due is when the next look could end the wait; zero when it is not quiet.
func (q *quiet) due() time.Time {
	if q.since.IsZero() {
		return time.Time{}
	}
	return q.since.Add(q.span)
}
