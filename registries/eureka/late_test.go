package eureka

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// The real server registers the app's last request, DOWN, right after the first
// cancellation. A proxy between the server and Lastcall enforces that order.
func TestLateRegistrationIsCancelled(t *testing.T) {
	a := newApp(startServers(t, oneServer), nil)
	var once sync.Once
	r := behindStage(t, a, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		forward.ServeHTTP(w, r)
		once.Do(func() { a.registerAs(t, down) })
	})
	registrytest.Call(t, "Withdraw", r.Withdraw)
	registrytest.Call(t, "Deregister", r.Deregister)
	once.Do(func() { t.Error("the stage has seen no cancellation") })
	if a.Known(t) {
		t.Error("an instance that was registered late is left behind")
	}
}

// A heartbeat just before the end reaches the other server after the
// cancellation. That server does not know the instance any more, and gets it
// registered again. How late that is depends on the servers: if this machine is
// so busy that it comes after the last cancellation, the test tries again.
func TestHeartbeatThatIsReplicatedLate(t *testing.T) {
	t.Parallel()
	const tries = 5
	for range tries {
		a := newApp(startServers(t, twoServers), nil)
		a.Register(t)
		r := a.registry(t)
		registrytest.Call(t, "Withdraw", r.Withdraw)
		a.Settle(t)
		a.Heartbeat(t)
		registrytest.Call(t, "Deregister", r.Deregister)
		a.Settle(t) // the heartbeat,
		a.Settle(t) // and its consequences
		if !a.Known(t) {
			return
		}
	}
	t.Errorf("an instance was left behind, %d times of %d", tries, tries)
}

// The time runs out during the second request to the server. The instance was
// cancelled before, so that is no error.
func TestSecondCancellationOutOfTime(t *testing.T) {
	a := newApp(startServers(t, oneServer), nil)
	ctx, timeIsUp := context.WithCancel(t.Context())
	var asked atomic.Int32
	r := behindStage(t, a, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if asked.Add(1) == 1 {
			forward.ServeHTTP(w, r)
			return
		}
		timeIsUp()
		<-r.Context().Done()
	})
	if err := r.Deregister(ctx); err != nil || asked.Load() != 2 {
		t.Errorf("%v after %d cancellations, want no error after 2", err, asked.Load())
	}
	if a.Known(t) {
		t.Error("the instance is still there")
	}
}

// A sidecar that has to stop at the end of its grace period has a second left,
// or less. It does not wait for a step that does not fit.
func TestCancellationsThatFitIn(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		limit time.Duration // 0: none
		back  []int         // the cancellations at which the instance was there again
		ours  time.Duration // how long ago the sidecar sent a renewal; 0: it registers nothing
		want  []time.Duration
	}{
		"no limit":        {want: []time.Duration{0, 500 * ms, 1250 * ms}},
		"much time":       {limit: 5 * time.Second, want: []time.Duration{0, 500 * ms, 1250 * ms}},
		"a second":        {limit: time.Second, want: []time.Duration{0, 500 * ms}},
		"less":            {limit: 800 * ms, want: []time.Duration{0, 500 * ms}},
		"next to no time": {limit: 300 * ms, want: []time.Duration{0}},
		"it was back": {
			back: []int{3}, want: []time.Duration{0, 500 * ms, 1250 * ms, 2000 * ms, 2500 * ms},
		},
		"renewed long ago": {ours: time.Minute, want: []time.Duration{0, 500 * ms, 1250 * ms}},
		"renewed right before": {
			ours: 4 * time.Second, want: []time.Duration{0, 500 * ms, 1250 * ms, 2000 * ms},
		},
		"renewed right before, and it was back": {
			ours: 4 * time.Second, back: []int{4}, want: []time.Duration{0, 500 * ms, 1250 * ms, 2000 * ms, 2750 * ms, 3250 * ms},
		},
		"it comes back for ever": {
			ours: time.Minute, back: []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
			want: []time.Duration{
				0, 500 * ms, 1250 * ms, 2000 * ms, 2750 * ms, 3500 * ms, 4250 * ms, 5000 * ms, 5750 * ms,
				6500 * ms, 7250 * ms, 8000 * ms, 8750 * ms, 9500 * ms, 10000 * ms,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := New(Config{URLs: []string{"http://eureka:8761/eureka"}, App: "APP", InstanceID: "pod", Status: outOfService}, drain.Pod{})
				if err != nil {
					t.Fatal(err)
				}
				if test.ours > 0 {
					r.registrant = &registrant{}
					r.registrant.said()
					after := time.NewTimer(test.ours)
					<-after.C
				}
				began := time.Now()
				var got []time.Duration
				r.peers[0].transport = new(http.Transport)
				r.peers[0].transport.RegisterProtocol("http", roundTrip(func(req *http.Request) (*http.Response, error) {
					if req.Method != http.MethodDelete {
						return nil, fmt.Errorf("%s %s is no cancellation", req.Method, req.URL)
					}
					got = append(got, time.Since(began))
					answer := http.StatusOK
					if len(got) > 1 && !slices.Contains(test.back, len(got)) {
						answer = http.StatusNotFound
					}
					return &http.Response{StatusCode: answer, Body: http.NoBody, Request: req}, nil
				}))
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				if err := r.Deregister(ctx); err != nil {
					t.Error(err)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("cancelled after %v, want %v", got, test.want)
				}
				if took := time.Since(began); took != test.want[len(test.want)-1] {
					t.Errorf("it took %v, want the end with the last cancellation", took)
				}
			})
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// behindStage registers the app at its server, and returns its registry. The
// registry's DELETEs, of the instance and of its override, pass through the
// stage.
func behindStage(t *testing.T, a *fakeApp, stage func(http.ResponseWriter, *http.Request, http.Handler)) *Registry {
	t.Helper()
	server, err := url.Parse(a.urls[0])
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: server.Scheme, Host: server.Host})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, server.Path+"/apps/"+a.app+"/"+a.id) {
			stage(w, r, forward)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	a.Register(t)
	a.cfg.URLs, a.cfg.App, a.cfg.InstanceID = []string{front.URL + server.Path}, a.app, a.id
	return a.registry(t)
}
