package counting

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// A history consists of at least historyAnswers answers within historyLasts.
const (
	historyLasts   = 36 * time.Second
	historyAnswers = 40
	short          = 50 * time.Millisecond // a fast request
	rest           = 600 * time.Millisecond
)

// getter makes requests that take as long as d says.
type getter interface {
	get(ctx context.Context, d time.Duration) error
}

// behavior is how a client behaves.
type behavior struct {
	// prepare is called first; it may be nil.
	prepare func(ctx context.Context) error
	// history, if not nil, replaces the history that fast and slow make.
	history func(ctx context.Context) error
	// fast makes one or more fast requests, slow one that takes as long as d says.
	// They run at the same time, or one after the other if inTurn is true: all
	// requests then share one connection, so that its answers can be told apart.
	fast   func(ctx context.Context) error
	slow   func(ctx context.Context, d time.Duration) error
	inTurn bool
	// measured makes the measured request, and calls began when it is under way.
	measured func(ctx context.Context, d time.Duration, began func()) error
	close    func()
}

var errLittle = errors.New("the client has received too few answers")

// live produces the client's history.
func (b *behavior) live(ctx context.Context, w *work, longest time.Duration) error {
	if b.history != nil {
		return b.history(ctx)
	}
	if b.inTurn {
		return b.liveInTurn(ctx, w, longest)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	over := make(chan struct{})
	var fast error
	var both sync.WaitGroup
	both.Go(func() {
		for fast == nil {
			if fast = b.fast(ctx); fast == nil {
				fast = sleep(ctx, rest)
			}
			select {
			case <-over:
				if w.answered() >= historyAnswers || fast != nil {
					return
				}
			default:
			}
		}
		cancel() // stops the slow requests
	})
	var slow error
	for time.Since(began) < historyLasts && slow == nil {
		if slow = b.slow(ctx, longest); slow == nil {
			slow = sleep(ctx, rest/2)
		}
	}
	close(over)
	both.Wait()
	if err := errors.Join(fast, slow); err != nil {
		return fmt.Errorf("making history: %w", err)
	}
	if n := w.answered(); n < historyAnswers {
		return fmt.Errorf("%w: %d", errLittle, n)
	}
	return nil
}

// liveInTurn produces the history with one request at a time: many fast ones, then
// a slow one.
func (b *behavior) liveInTurn(ctx context.Context, w *work, longest time.Duration) error {
	for began := time.Now(); time.Since(began) < historyLasts || w.answered() < historyAnswers; {
		for range historyAnswers / 2 {
			if err := errors.Join(b.fast(ctx), sleep(ctx, rest/2)); err != nil {
				return fmt.Errorf("making history: %w", err)
			}
		}
		if err := errors.Join(b.slow(ctx, longest), sleep(ctx, rest)); err != nil {
			return fmt.Errorf("making history: %w", err)
		}
	}
	return nil
}

// youth makes the few requests of a client of an app that has just started.
func (b *behavior) youth(ctx context.Context) error {
	for range 3 {
		if err := errors.Join(b.fast(ctx), sleep(ctx, rest/2)); err != nil {
			return err
		}
	}
	return nil
}

// one returns a function that measures a request that begins at once.
func one(g getter) func(context.Context, time.Duration, func()) error {
	return func(ctx context.Context, d time.Duration, began func()) error {
		began()
		return g.get(ctx, d)
	}
}

// newBehavior returns the behavior of a run's client.
func newBehavior(t testing.TB, r *Run, w *world, at *target, gateway int, done *work) *behavior {
	t.Helper()
	switch r.Client {
	case fresh, freshTLS12, resumed, resumedTLS12:
		return freshly(at, done)
	case kept:
		return keeping(at, done)
	case backToBack:
		return withoutGap(at, done)
	case byNginx, byHAProxy:
		return pooled(w.gateway(t, r, at, gateway), done)
	case webSocket:
		return onSockets(at, done, 3)
	case idlePool:
		return idling(at, done)
	case http2Streams:
		return streams(0)(t, at, done)
	case grpcOverlap:
		return calling(startCaller(t, at, done, w.certificate, 0, 1))
	case grpcSilent:
		return inTurn(calling(startCaller(t, at, done, w.certificate, 0, 1)))
	case grpcPinging:
		return inTurn(calling(startCaller(t, at, done, w.certificate, pingSeconds, 1)))
	case grpcStream:
		return inTurn(streaming(startCaller(t, at, done, w.certificate, 0, 1)))
	case grpcIdle:
		b := calling(startCaller(t, at, done, w.certificate, pingSeconds, 30))
		b.measured = func(_ context.Context, _ time.Duration, began func()) error { began(); return nil }
		return b
	}
	t.Fatalf("there is no client %s", r.Client)
	return nil
}

func inTurn(b *behavior) *behavior {
	b.inTurn = true
	return b
}

// pingSeconds is the shortest ping interval that gRPC's Go library allows.
const pingSeconds = 10

// freshConnections opens a new connection for each request.
type freshConnections struct {
	*target
	w *work
}

func (f freshConnections) get(ctx context.Context, d time.Duration) error {
	c := &connection{target: f.target, w: f.w}
	defer c.close()
	return c.get(ctx, d)
}

func freshly(at *target, w *work) *behavior {
	f := freshConnections{at, w}
	return &behavior{
		fast:     func(ctx context.Context) error { return f.get(ctx, short) },
		slow:     f.get,
		measured: one(f),
		close:    func() {},
	}
}

// keeping has four connections: one for fast requests, one for slow ones, and two
// that have had a few requests. The measured request uses the first, after a short
// idle time.
func keeping(at *target, w *work) *behavior {
	pool := make([]*connection, 4)
	for i := range pool {
		pool[i] = &connection{target: at, w: w}
	}
	return &behavior{
		prepare: func(ctx context.Context) error {
			for range 3 {
				for _, c := range pool {
					if err := c.get(ctx, short); err != nil {
						return err
					}
				}
				if err := sleep(ctx, rest/2); err != nil {
					return err
				}
			}
			return nil
		},
		fast:     func(ctx context.Context) error { return pool[0].get(ctx, short) },
		slow:     pool[1].get,
		measured: one(pool[0]),
		close:    func() { closeAll(pool) },
	}
}

func closeAll(connections []*connection) {
	for _, c := range connections {
		c.close()
	}
}

// idling has ten connections. Each has had a few requests without a pause between
// them.
func idling(at *target, w *work) *behavior {
	const many, each = 10, 5
	pool := make([]*connection, many)
	for i := range pool {
		pool[i] = &connection{target: at, w: w}
	}
	some := func(ctx context.Context) error {
		for _, c := range pool {
			for range each {
				if err := c.get(ctx, 0); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return &behavior{
		fast: some,
		slow: func(ctx context.Context, _ time.Duration) error { return sleep(ctx, rest) },
		measured: func(ctx context.Context, _ time.Duration, began func()) error {
			err := some(ctx)
			began()
			return err
		},
		close: func() { closeAll(pool) },
	}
}

// withoutGap sends each request immediately after the answer to a fast one.
func withoutGap(at *target, w *work) *behavior {
	pool := []*connection{{target: at, w: w}, {target: at, w: w}}
	pair := func(c *connection) func(context.Context, time.Duration) error {
		return func(ctx context.Context, d time.Duration) error {
			if err := c.get(ctx, 0); err != nil {
				return err
			}
			return c.get(ctx, d)
		}
	}
	return &behavior{
		fast: func(ctx context.Context) error { return pair(pool[0])(ctx, 0) },
		slow: pair(pool[1]),
		measured: func(ctx context.Context, d time.Duration, began func()) error {
			if err := pool[0].get(ctx, 0); err != nil {
				return err
			}
			began()
			return pool[0].get(ctx, d)
		},
		close: func() { closeAll(pool) },
	}
}

// pooled has a gateway in front of the app, and clients that send it fast requests
// for a moment. The measured request comes among these.
func pooled(gateway *target, w *work) *behavior {
	const (
		many  = 3
		burst = 400 * time.Millisecond
		pause = 10 * time.Millisecond
	)
	pool := make([]*connection, many+1)
	for i := range pool {
		pool[i] = &connection{target: gateway, w: w}
	}
	// ask lets the clients do this for the time lasts.
	ask := func(ctx context.Context, lasts time.Duration) error {
		ends := time.Now().Add(lasts)
		failed := make([]error, many)
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				for failed[i] == nil && time.Now().Before(ends) {
					if failed[i] = pool[i].get(ctx, 0); failed[i] == nil {
						failed[i] = sleep(ctx, pause)
					}
				}
			})
		}
		all.Wait()
		return errors.Join(failed...)
	}
	return &behavior{
		fast: func(ctx context.Context) error {
			return errors.Join(ask(ctx, burst), sleep(ctx, rest))
		},
		slow: pool[many].get,
		measured: func(ctx context.Context, d time.Duration, began func()) error {
			var others sync.WaitGroup
			var failed error
			others.Go(func() { failed = ask(ctx, 2*burst) })
			err := sleep(ctx, burst)
			if err == nil {
				began()
				err = pool[many].get(ctx, d)
			}
			others.Wait()
			return errors.Join(err, failed)
		},
		close: func() { closeAll(pool) },
	}
}

// onSockets has WebSockets: one for fast messages, one for slow ones, and idle
// ones. They are opened at different times within beatEvery, so that they are not
// all pinged at the same moment.
func onSockets(at *target, w *work, many int) *behavior {
	sockets := make([]*socket, many)
	return &behavior{
		prepare: func(ctx context.Context) (err error) {
			for i := range sockets {
				if sockets[i], err = at.openSocket(ctx, w); err != nil {
					return err
				}
				if err := sockets[i].get(ctx, short); err != nil {
					return err
				}
				if err := sleep(ctx, min(beatEvery/time.Duration(many), rest)); err != nil {
					return err
				}
			}
			return nil
		},
		fast: func(ctx context.Context) error { return sockets[0].get(ctx, short) },
		slow: func(ctx context.Context, d time.Duration) error { return sockets[1].get(ctx, d) },
		measured: func(ctx context.Context, d time.Duration, began func()) error {
			began()
			return sockets[0].get(ctx, d)
		},
		close: func() {
			for _, s := range sockets {
				if s != nil {
					s.close()
				}
			}
		},
	}
}

// calling uses one gRPC channel.
func calling(c *caller) *behavior {
	return &behavior{
		fast:     func(ctx context.Context) error { return c.get(ctx, short) },
		slow:     c.get,
		measured: one(c),
		close:    func() {}, // it is stopped at the end of the test
	}
}

// streaming makes calls whose answers come in three parts.
func streaming(c *caller) *behavior {
	get := func(ctx context.Context, d time.Duration) error {
		half := (d / 2).Milliseconds()
		return c.call(ctx, fmt.Sprintf("stream %d %d", half, half), d+patience)
	}
	return &behavior{
		fast: func(ctx context.Context) error { return get(ctx, short) },
		slow: get,
		measured: func(ctx context.Context, d time.Duration, began func()) error {
			began()
			return get(ctx, d)
		},
		close: func() {}, // it is stopped at the end of the test
	}
}
