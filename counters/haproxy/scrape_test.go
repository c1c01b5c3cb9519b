package haproxy

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestCarrierIsNeverTakenForWork reads pages of random traffic. A request may
// be subtracted only if the frontend of the page itself is counted.
func TestCarrierIsNeverTakenForWork(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 0))
		frontends := make([]frontend, 1+random.IntN(4))
		counted := make(map[string]bool)
		for i := range frontends {
			name := strconv.Itoa(i)
			frontends[i] = frontend{name: name, http: true, total: random.Uint64N(3)}
			frontends[i].itself = random.Uint64N(frontends[i].total + 1)
			counted[name] = random.IntN(2) == 0
		}
		counts := func(f frontend) bool { return counted[f.name] }
		carries := random.IntN(len(frontends))
		byBackend := random.IntN(3) == 0
		busy := make([]int64, len(frontends))
		var c scrapeRequest
		var last map[string]frontend
		for reading := range 20 {
			still := true // true if only the request for the page has come
			page := make([]frontend, len(frontends))
			for i := range frontends {
				f := &frontends[i]
				if came := random.Int64N(3) - 1; reading < 15 && came != 0 && busy[i]+came >= 0 {
					busy[i] += came
					f.total += uint64(max(came, 0))
					still = still && came < 0
				}
				if i == carries {
					f.total++
					if !byBackend {
						f.itself++
					}
				}
				page[i] = *f
				page[i].streams = busy[i]
			}
			page[carries].streams++
			own, err := c.counted(page, last, 1, counts)
			if err != nil {
				t.Fatalf("seed %d, reading %d: %v", seed, reading, err)
			}
			is := counted[page[carries].name]
			if own == 1 && !is {
				t.Fatalf("seed %d, reading %d: a request in flight was taken off as the one for the page", seed, reading)
			}
			if reading > 0 && still && own == 0 && is {
				t.Fatalf("seed %d, reading %d: the request for the page was counted", seed, reading)
			}
			last = byName(page)
		}
	}
}

func TestArrivalsNeverFallWhenWorkersEnd(t *testing.T) {
	all := func(frontend) bool { return true }
	is := func(pid int, total uint64) worker {
		return worker{pid: pid, frontends: []frontend{{name: "web", http: true, total: total}}}
	}
	var a arrivals
	for i, step := range []struct {
		workers []worker
		want    uint64
	}{
		{[]worker{is(1, 10)}, 10},
		{[]worker{is(1, 12), is(2, 1)}, 13},
		{[]worker{is(2, 5)}, 17},
		{nil, 17},
		{[]worker{is(2, 3)}, 20}, // a process id that is used again
	} {
		if got := a.sum(step.workers, all); got != step.want {
			t.Fatalf("step %d: got %d, want %d", i, got, step.want)
		}
	}
}
