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

// look takes one snapshot in, whose last reading ended at now, and reports whether
// it has been quiet for the span. A counter that cannot be read is not quiet.
func (q *quiet) look(s snapshot, now time.Time) bool {
	sum, known := inFlight(s.readings)
	arrival := q.arrival(s.readings)
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
	case s.began.Sub(q.since) >= q.span:
		return true
	}
	return q.span <= 0 && !q.since.IsZero()
}

// nobody reports whether a snapshot proves that nobody is about to send again: no
// connection is open on which somebody could, and nothing has arrived on a new
// one for the span, in whatever phase. Every counter must know both.
func (q *quiet) nobody(s snapshot) bool {
	sum, known := inFlight(s.readings)
	return known && sum <= q.threshold && allClosed(s.readings) && !q.calm.IsZero() && s.began.Sub(q.calm) >= q.span
}

// allClosed reports whether every counter knows that no connection is open.
// With no counter, nobody knows.
func allClosed(readings []reading) bool {
	for _, r := range readings {
		if r.err != nil || !r.HasOpen || r.Open != 0 || !r.HasArrived {
			return false
		}
	}
	return len(readings) > 0
}

// arrival reports whether anything has arrived since the last look. A counter
// that started again, with a smaller number, may have missed something.
func (q *quiet) arrival(readings []reading) bool {
	first := q.arrived == nil
	if first {
		q.arrived = make([]uint64, len(readings))
	}
	came := false
	for i, r := range readings {
		if r.err != nil || !r.HasArrived {
			continue
		}
		came = came || !first && r.Arrived != q.arrived[i]
		q.arrived[i] = r.Arrived
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
