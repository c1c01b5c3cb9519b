package eureka

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// slowServer stands before a real server and holds each answer back.
type slowServer struct {
	url   string
	delay time.Duration

	mu    sync.Mutex
	calls []string
}

func slowDown(t *testing.T, server string, delay time.Duration) *slowServer {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	s := &slowServer{delay: delay}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: to.Scheme, Host: to.Host})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.calls = append(s.calls, r.Method+" "+strings.TrimPrefix(r.URL.Path, to.Path))
		s.mu.Unlock()
		held := time.NewTimer(s.delay)
		defer held.Stop()
		select {
		case <-held.C:
			forward.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(front.Close)
	s.url = front.URL + to.Path
	return s
}

// since returns the calls after the first n.
func (s *slowServer) since(n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls[n:]...)
}

// again calls f, each time with no more time than one request has, as a drainer
// does that knows nothing of chains, until it succeeds.
func again(t *testing.T, what string, limit time.Duration, f func(context.Context) (bool, error)) {
	t.Helper()
	wait.Until(t, what, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		done, err := f(ctx)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: %v", what, err)
		}
		return done && err == nil
	})
}

func noResult(f func(context.Context) error) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		err := f(ctx)
		return err == nil, err
	}
}

// Servers that take from 0.5 to 4 s for an answer, of which a request may take
// 5 s: here all in a quarter of the time. The first request of a drain is the
// withdrawal, it is in effect within two answers' time, and all the rest is done
// although no call may take longer than one request.
func TestSlowServers(t *testing.T) {
	t.Parallel()
	servers.NeedEureka(t)
	const scale = 4
	for _, seconds := range []float64{0.5, 1, 2, 3, 4} {
		for _, way := range []string{"found by address", "application known", "application and id known", "one slow peer of two"} {
			if strings.HasSuffix(way, "known") && seconds != 1 && seconds != 4 {
				continue // the same requests, but for the search
			}
			t.Run(fmt.Sprintf("%v s, %s", seconds, way), func(t *testing.T) {
				t.Parallel()
				start := oneServer
				if way == "one slow peer of two" {
					start = twoServers
				}
				s := startServers(t, start)
				delay := time.Duration(seconds * float64(time.Second) / scale)
				slow := slowDown(t, s.URLs[len(s.URLs)-1], delay)
				a := newApp(s, nil)
				a.cfg.URLs = append(append([]string(nil), s.URLs[:len(s.URLs)-1]...), slow.url)
				a.cfg.ClientRefresh = time.Second
				if way != "found by address" {
					a.cfg.App = a.app
				}
				if way == "application and id known" {
					a.cfg.InstanceID = a.id
				}
				a.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return a.Listed(t) })
				r := a.registry(t)
				for _, p := range r.peers {
					p.limit = requestLimit/scale + time.Second // a busy machine is slow itself
				}
				ctx, cancel := context.WithTimeout(t.Context(), r.CallLimit())
				_, err := r.Find(ctx)
				cancel()
				if err != nil {
					t.Fatalf("Find: %v", err)
				}

				before, began := len(slow.since(0)), time.Now()
				withdrawn := make(chan time.Duration, 1)
				go func() {
					wait.Until(t, "the withdrawal", func() bool { return a.statusAt(t, s.URLs[len(s.URLs)-1]) == outOfService })
					withdrawn <- time.Since(began)
				}()
				again(t, "Withdraw", r.peers[0].limit, noResult(r.Withdraw))
				if took := <-withdrawn; took > 2*delay+time.Second {
					t.Errorf("withdrawn after %v, want two answers' time, %v", took, 2*delay)
				}
				if calls := slow.since(before); !strings.HasPrefix(calls[0], "PUT ") {
					t.Errorf("the drain began with %q, want the withdrawal", calls)
				}
				again(t, "Withdrawn", r.peers[0].limit, r.Withdrawn)
				if a.Listed(t) {
					t.Error("Withdrawn says true, and a client is still told")
				}
				before = len(slow.since(0))
				again(t, "Deregister", r.peers[0].limit, noResult(r.Deregister))
				if calls := slow.since(before); !strings.HasPrefix(calls[0], "DELETE ") {
					t.Errorf("Deregister began with %q, want the cancellation", calls)
				}
				if a.Known(t) {
					t.Error("the instance is left behind")
				}
			})
		}
	}
}

// One call that has the time for its chain is enough.
func TestSlowServerInOneCall(t *testing.T) {
	t.Parallel()
	s := startServers(t, oneServer)
	slow := slowDown(t, s.URLs[0], time.Second)
	a := newApp(s, func(a *fakeApp) { a.cfg.App, a.cfg.URLs = a.app, []string{slow.url} })
	a.Register(t)
	r := a.registry(t)
	for what, f := range map[string]func(context.Context) error{
		"Find":      func(ctx context.Context) error { _, err := r.Find(ctx); return err },
		"Withdraw":  r.Withdraw,
		"Withdrawn": func(ctx context.Context) error { _, err := r.Withdrawn(ctx); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), r.CallLimit())
		if err := f(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
}
