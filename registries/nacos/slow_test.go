package nacos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	slowURL = "http://slow/nacos"
	fastURL = "http://fast/nacos"
)

// slowNetwork connects to a server by two names, and delays the answers of one.
// It has no sockets, so that the test's fake time works.
type slowNetwork struct {
	f     http.Handler
	delay time.Duration

	mu    sync.Mutex
	calls []string // at slowURL
}

func (n *slowNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == "slow" {
		n.mu.Lock()
		n.calls = append(n.calls, r.Method+" "+r.URL.Path)
		n.mu.Unlock()
		held := time.NewTimer(n.delay)
		defer held.Stop()
		select {
		case <-held.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	got := httptest.NewRecorder()
	n.f.ServeHTTP(got, r)
	return got.Result(), nil
}

// since skips the first so calls and returns the rest.
func (n *slowNetwork) since(so int) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls[so:])
}

// Servers take from 0.5 to 4 s for an answer. If the instance was seen a moment
// ago, the first request of a drain is the withdrawal. In any case the
// withdrawal takes effect within the time of two answers.
func TestSlowServers(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		for _, delay := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second} {
			for _, way := range []string{"seen a moment ago", "seen long ago", "beside a fast server", "in small steps"} {
				t.Run(fmt.Sprintf("%s/%v, %s", k.name, delay, way), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { runSlow(t, k, delay, way) })
				})
			}
		}
	}
}

func runSlow(t *testing.T, k kind, delay time.Duration, way string) {
	t.Helper()
	f := newFake(k.major, k.change)
	n := &slowNetwork{f: f, delay: delay}
	h := newHarness(f, fastURL, k.client)
	h.transport = n
	if f.auth {
		h.cfg.Username, h.cfg.Password = fakeUser, fakePassword
	}
	if h.cfg.URLs = []string{slowURL}; way == "beside a fast server" {
		h.cfg.URLs = append(h.cfg.URLs, fastURL)
	}
	h.Register(t)
	r := h.plugIn(t)
	limited(t, "Find", r, func(ctx context.Context) error { _, err := r.Find(ctx); return err })
	if way == "seen long ago" {
		for _, one := range r.targets {
			one.last.at = one.last.at.Add(-trustFor - time.Second)
		}
	}
	h.Heartbeat(t)

	before, began := len(n.since(0)), time.Now()
	withdrawn := make(chan time.Duration)
	go func() {
		defer close(withdrawn)
		for h.shown(t).enabled {
			<-time.After(10 * time.Millisecond)
		}
		withdrawn <- time.Since(began)
	}()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		if way == "in small steps" {
			inSmallSteps(t, r)
			return
		}
		limited(t, "Withdraw", r, r.Withdraw)
	}()
	if after := <-withdrawn; after > 2*delay+10*time.Millisecond {
		t.Errorf("withdrawn after %v, want two answers' time", after)
	}
	<-finished
	calls := n.since(before)
	if isRead := strings.HasPrefix(calls[0], "GET "); isRead != (way == "seen long ago") {
		t.Errorf("the drain began with %q", calls)
	}
	h.Heartbeat(t)
	began = time.Now()
	limited(t, "Withdrawn", r, func(ctx context.Context) error {
		gone, err := r.Withdrawn(ctx)
		if !gone && err == nil {
			err = errors.New("it is still listed")
		}
		return err
	})
	if took := time.Since(began); took > delay {
		t.Errorf("Withdrawn took %v, want one answer's time", took)
	}
	if _, hasMark := h.shown(t).metadata[markKey]; !hasMark && !f.noBatch || h.Listed(t) {
		t.Errorf("listed %v, mark %v", h.Listed(t), hasMark)
	}
	limited(t, "Restore", r, r.Restore)
	if _, hasMark := h.shown(t).metadata[markKey]; hasMark || !h.Listed(t) {
		t.Errorf("after Restore: listed %v, mark %v", h.Listed(t), hasMark)
	}
	h.Heartbeat(t)
	limited(t, "Deregister", r, r.Deregister)
	if h.Known(t) && h.client != grpc { // its instance disappears with the connection
		t.Error("the instance is left behind")
	}
}

// limited makes a call with the drainer's time limit.
func limited(t *testing.T, what string, r *Registry, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), r.CallLimit())
	defer cancel()
	if err := call(ctx); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// inSmallSteps withdraws by calls whose time is enough for one request only.
// Each continues where the previous one was cut off.
func inSmallSteps(t *testing.T, r *Registry) {
	t.Helper()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), requestLimit)
		err := r.Withdraw(ctx)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Withdraw: %v", err)
			return
		}
	}
	t.Error("Withdraw does not come to an end")
}
