package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// stage is a proxy in front of a real agent. It delays each answer and records
// the calls.
type stage struct {
	url   string
	delay time.Duration

	mu    sync.Mutex
	calls []string
}

func before(t *testing.T, agent *servers.ConsulAgent, delay time.Duration) *stage {
	t.Helper()
	to, err := url.Parse(agent.Address)
	check(t, err)
	s := &stage{delay: delay}
	forward := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.calls = append(s.calls, r.Method+" "+r.URL.Path)
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
	t.Cleanup(front.CloseClientConnections)
	s.url = front.URL
	return s
}

func (s *stage) since(n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls[n:])
}

// Consul takes from 0.5 to 4 s for an answer, here a quarter of that: the first
// request withdraws the instance, the next one sees the effect, and the
// instance is deregistered without another query.
func TestSlowServers(t *testing.T) {
	t.Parallel()
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	const scale = 4
	for _, seconds := range []float64{0.5, 1, 2, 3, 4} {
		for _, way := range []struct {
			name string
			at   *servers.ConsulAgent
			new  func(*testing.T, *servers.ConsulAgent) *harness
		}{{"agent", agent, onNodeAgent}, {"agentless", server, agentless}} {
			t.Run(fmt.Sprintf("%v s/%s", seconds, way.name), func(t *testing.T) {
				t.Parallel()
				delay := time.Duration(seconds * float64(time.Second) / scale)
				h := way.new(t, way.at)
				s := before(t, way.at, delay)
				h.config.Address = s.url
				h.Register(t)
				wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
				r := h.plugIn(t)
				limited := func(what string, f func(context.Context) error) {
					t.Helper()
					ctx, cancel := context.WithTimeout(t.Context(), r.CallLimit()/scale)
					defer cancel()
					if err := f(ctx); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
				}
				limited("Find", func(ctx context.Context) error { _, err := r.Find(ctx); return err })

				n, began := len(s.since(0)), time.Now()
				limited("Withdraw", r.Withdraw)
				if took := time.Since(began); took > 2*delay+time.Second {
					t.Errorf("Withdraw took %v, want two answers' time, %v", took, 2*delay)
				}
				for _, call := range s.since(n) {
					if !strings.HasPrefix(call, "PUT ") {
						t.Errorf("Withdraw made the call %s, want nothing but the withdrawal", call)
					}
				}
				wait.Until(t, "Withdrawn", func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), r.CallLimit()/scale)
					defer cancel()
					gone, err := r.Withdrawn(ctx)
					return err == nil && gone
				})
				if h.Listed(t) {
					t.Error("Withdrawn returns true, but a client still gets the instance")
				}
				limited("Deregister", r.Deregister)
				wait.Until(t, "the instance being gone", func() bool { return !h.Known(t) })
			})
		}
	}
}

// found registers the instance, and returns a plug-in that has found it, and what
// records its calls.
func found(t *testing.T, h *harness) (*Registry, *stage) {
	t.Helper()
	s := before(t, h.at, 0)
	h.config.Address = s.url
	h.Register(t)
	wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	r := h.plugIn(t)
	must(t, func(ctx context.Context) error { _, err := r.Find(ctx); return err })
	return r, s
}

// The sidecar of an app that was killed has less than two seconds. Nothing is asked
// before the instance is removed, although it was never withdrawn.
func TestDeregisterInTheLastMoment(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	for name, h := range map[string]*harness{"agent": onNodeAgent(t, agent), "agentless": agentless(t, server)} {
		t.Run(name, func(t *testing.T) {
			r, s := found(t, h)
			n := len(s.since(0))
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			if err := r.Deregister(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			wait.Until(t, "the instance being gone", func() bool { return !h.Known(t) })
			for _, call := range s.since(n) {
				if !strings.HasPrefix(call, "PUT ") {
					t.Errorf("Deregister made the call %s, want nothing but the removal", call)
				}
			}
		})
	}
}

// A drain makes few calls, however often the drainer calls Withdrawn.
func TestFewCalls(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	for name, h := range map[string]*harness{"agent": onNodeAgent(t, agent), "agentless": agentless(t, server)} {
		t.Run(name, func(t *testing.T) {
			r, s := found(t, h)
			n := len(s.since(0))
			must(t, r.Withdraw)
			wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })
			for range 40 {
				if !withdrawn(t, r) {
					t.Fatal("the instance is back in service")
				}
			}
			must(t, r.Withdraw) // again, as a drainer does
			must(t, r.Deregister)
			if calls := s.since(n); len(calls) > 12 {
				t.Errorf("%d calls, want at most 12: %q", len(calls), calls)
			}
		})
	}
}
