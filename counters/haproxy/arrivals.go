package haproxy

// arrivals adds up what has arrived, over workers that come and go.
type arrivals struct {
	ended uint64         // in workers that have ended
	last  map[int]uint64 // in each worker at the last reading, by process id
}

func (a *arrivals) sum(workers []worker, counts func(frontend) bool) uint64 {
	now := make(map[int]uint64, len(workers))
	for _, w := range workers {
		for _, f := range w.frontends {
			if counts(f) {
				now[w.pid] += f.arrived()
			}
		}
	}
	for pid, before := range a.last {
		if now[pid] < before { // it has ended; the new one may have its id
			a.ended += before
		}
	}
	a.last = now
	sum := a.ended
	for _, n := range now {
		sum += n
	}
	return sum
}
