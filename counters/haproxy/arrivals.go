package haproxy

// arrivals adds up the arrivals of all workers, including those that have
// ended.
type arrivals struct {
	ended uint64         // arrivals in workers that have ended
	last  map[int]uint64 // arrivals in each worker at the last reading, by process id
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
		if now[pid] < before { // the worker has ended; a new one may have the same id
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
