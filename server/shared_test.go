package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

// slowCounter takes a second for each reading.
type slowCounter struct {
	mu    sync.Mutex
	reads int
}

func (c *slowCounter) Count(ctx context.Context) (drain.Reading, error) {
	c.mu.Lock()
	c.reads++
	c.mu.Unlock()
	select {
	case <-time.After(time.Second):
		return drain.Reading{}, nil
	case <-ctx.Done():
		return drain.Reading{}, ctx.Err()
	}
}

func (c *slowCounter) taken() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.reads = 0 }()
	return c.reads
}

func TestManyCallersShareOneAnswer(t *testing.T) {
	for _, path := range []string{"/metrics", "/status"} {
		t.Run(path, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := &slowCounter{}
				e := newEdge(t, func(cfg *drain.Config, _ *Options) {
					cfg.Counters = []drain.NamedCounter{{Name: "slow", Counter: c}}
				})
				after(5 * time.Second)
				c.taken()
				var all sync.WaitGroup
				began := time.Now()
				for range 1000 {
					all.Go(func() {
						if w := e.call(http.MethodGet, path); w.Code != http.StatusOK {
							t.Errorf("answers %d", w.Code)
						}
					})
				}
				all.Wait()
				// One reading for the first caller, and one that the others
				// share.
				if n := c.taken(); n > 3 || time.Since(began) > 3*time.Second {
					t.Errorf("1000 callers took %d readings, in %v", n, time.Since(began))
				}
			})
		})
	}
}

func TestSharedIsNeverOlderThanTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		number := 0
		s := &shared[int]{produce: func(context.Context) int {
			mu.Lock()
			defer mu.Unlock()
			number++
			n := number
			after(time.Second)
			return n
		}}
		var all sync.WaitGroup
		for i := range 10 { // one every 300 ms
			all.Go(func() {
				after(time.Duration(i) * 300 * time.Millisecond)
				began := time.Duration(i) * 300 * time.Millisecond
				got, ok := s.get(t.Context())
				// Production n begins n-1 seconds after the first.
				if begun := time.Duration(got-1) * time.Second; !ok || begun < began {
					t.Errorf("who asked at %v got what was begun at %v, %v", began, begun, ok)
				}
			})
		}
		all.Wait()
	})
}

func TestSharedByCallersThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared[int]{produce: func(ctx context.Context) int {
			select {
			case <-ctx.Done():
				return 0
			case <-time.After(time.Second):
				return 1
			}
		}}
		leaves, cancel := context.WithCancel(t.Context())
		go s.get(leaves)
		synctest.Wait()
		go s.get(leaves) // begins the next one
		synctest.Wait()
		got := make(chan int)
		go func() {
			n, _ := s.get(t.Context())
			got <- n
		}()
		synctest.Wait()
		cancel()
		if n := <-got; n != 1 {
			t.Error("who stays gets nothing when another caller leaves")
		}
		if n, ok := s.get(leaves); !ok || n != 1 {
			t.Error("a production is cancelled with the caller that began it")
		}
	})
}

func TestSharedPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared[int]{produce: func(context.Context) int {
			after(time.Second)
			panic("on purpose")
		}}
		get := func() (ok bool) {
			defer func() { _ = recover() }()
			_, ok = s.get(t.Context())
			return ok
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if get() {
					t.Error("there is a value")
				}
			})
		}
		all.Wait()
	})
}

// Callers of /readyz must not be able to call the app as often as they like,
// and no caller waits for more than one answer of the app.
func TestAppIsAskedOnceForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		p := newAppProbe("http://127.0.0.1/ready", time.Second)
		p.shared.produce = func(context.Context) error {
			asked.Add(1)
			after(800 * time.Millisecond)
			return errBroken
		}
		var all sync.WaitGroup
		for i := range 1000 { // for 10 s
			all.Go(func() {
				after(time.Duration(i) * 10 * time.Millisecond)
				began := time.Now()
				if err := p.ask(t.Context()); !errors.Is(err, errBroken) || time.Since(began) > 800*time.Millisecond {
					t.Errorf("answered %v after %v", err, time.Since(began))
				}
			})
		}
		all.Wait()
		if n := asked.Load(); n > 13 {
			t.Errorf("the app was asked %d times in 10 s, each of which took 800 ms", n)
		}
	})
}
