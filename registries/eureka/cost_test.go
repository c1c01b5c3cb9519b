package eureka

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// cachingServer is a server with Eureka's default cache, in the test's fake
// time. Answers that clients request all the time are renewed in one pass every
// 30 s, and the others as of the first request.
type cachingServer struct {
	passes time.Time // time of one of the passes
	status string
	since  time.Time // when it got that status
	cached map[string]bool
	gone   bool // cancelled
	calls  int
}

func (s *cachingServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.calls++
	code, body := http.StatusOK, ""
	kind := r.URL.Path + " " + r.Header.Get("Accept")
	switch {
	case !s.gone && r.Method == http.MethodPut:
		if value := r.URL.Query().Get("value"); value != s.status {
			s.status, s.since = value, time.Now()
		}
	case s.gone:
		code = http.StatusNotFound
	case r.Method == http.MethodDelete:
		s.gone = true
	case strings.HasSuffix(r.URL.Path, "/pod-1"):
		body = `{"instance":` + s.instance(s.status, asJSON) + `}`
	default:
		status := s.status
		lastPass := time.Now().Add(-time.Since(s.passes) % ServerCache)
		if s.cached[kind] && s.since.After(lastPass) {
			status = up
		}
		s.cached[kind] = true
		root := "applications"
		if strings.HasSuffix(r.URL.Path, "/ORDERS") {
			root = "application"
		}
		switch one := s.instance(status, r.Header.Get("Accept")); {
		case r.Header.Get("Accept") == asXML:
			body = "<" + root + ">" + one + "</" + root + ">"
		default:
			body = `{"` + root + `":{"application":[{"instance":[` + one + `]}]}}`
		}
	}
	return &http.Response{StatusCode: code, Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (s *cachingServer) instance(status, accept string) string {
	overridden := "UNKNOWN"
	if status != up {
		overridden = status
	}
	if accept == asXML {
		return fmt.Sprintf(`<instance><instanceId>pod-1</instanceId><app>ORDERS</app><ipAddr>10.0.0.1</ipAddr><status>%s</status><port enabled="true">8080</port></instance>`, status)
	}
	return fmt.Sprintf(`{"instanceId":"pod-1","app":"ORDERS","ipAddr":"10.0.0.1","status":%q,"overriddenStatus":%q,"port":{"$":8080,"@enabled":"true"},"lastUpdatedTimestamp":%d,"lastDirtyTimestamp":7}`, status, overridden, s.since.UnixMilli())
}

// One drain with the default caches, queried as the drainer does. Whenever the
// server's cache is renewed, the drain makes at most 40 calls, and notices the
// renewal late by no more than a twentieth of the drain.
func TestCallsOfADrain(t *testing.T) {
	for phase := 500 * time.Millisecond; phase < ServerCache; phase += 2950 * time.Millisecond {
		t.Run(fmt.Sprintf("renewed after %v", phase), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const refresh = 30 * time.Second
				r, err := New(Config{URLs: []string{"http://eureka:8761/eureka"}, App: "ORDERS", Status: outOfService, ClientRefresh: refresh}, drain.Pod{IP: "10.0.0.1", AppPort: 8080})
				if err != nil {
					t.Fatal(err)
				}
				s := &cachingServer{passes: time.Now().Add(phase - ServerCache), status: up, since: time.Now().Add(-time.Hour), cached: map[string]bool{}}
				for _, warm := range []string{"/eureka/apps", "/eureka/apps/delta", "/eureka/apps/ORDERS"} {
					s.cached[warm+" "+asJSON] = true
				}
				r.peers[0].transport = new(http.Transport)
				r.peers[0].transport.RegisterProtocol("http", s)
				registrytest.Find(t, r)

				s.calls = 0
				began := time.Now()
				registrytest.Call(t, "Withdraw", r.Withdraw)
				toldAgain, gone := time.Now(), false
				for pause := 50 * time.Millisecond; !gone; pause = min(2*pause, 250*time.Millisecond) {
					if gone = registrytest.Withdrawn(t, r); gone {
						break
					}
					if time.Since(toldAgain) >= 5*time.Second {
						registrytest.Call(t, "Withdraw again", r.Withdraw)
						toldAgain = time.Now()
					}
					<-time.After(pause)
				}
				took := time.Since(began)
				if took < phase || took-phase > (phase+refresh)/20 {
					t.Errorf("seen %v after the withdrawal, want it from %v on, by no more than %v later", took, phase, (phase+refresh)/20)
				}
				for range 32 { // clients refresh, and then a second of quiet
					<-time.After(time.Second)
					if !registrytest.Withdrawn(t, r) {
						t.Fatal("Withdrawn returns false")
					}
				}
				registrytest.Call(t, "Deregister", func(ctx context.Context) error { return r.Deregister(ctx) })
				if s.calls > 40 {
					t.Errorf("%d calls, want at most 40", s.calls)
				}
				t.Logf("%d calls, seen %v late", s.calls, took-phase)
			})
		})
	}
}

// While clients refresh, an instance that is back in service is noticed before
// they have forgotten it, and at once in the last moments.
func TestBackInServiceIsSeen(t *testing.T) {
	for _, after := range []time.Duration{100 * time.Millisecond, 10 * time.Second, 25 * time.Second, 28 * time.Second, 35 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			const refresh = 30 * time.Second
			r, err := New(Config{URLs: []string{"http://eureka:8761/eureka"}, App: "ORDERS", Status: outOfService, ClientRefresh: refresh}, drain.Pod{IP: "10.0.0.1", AppPort: 8080})
			if err != nil {
				t.Fatal(err)
			}
			s := &cachingServer{passes: time.Now(), status: up, since: time.Now().Add(-time.Hour), cached: map[string]bool{}}
			r.peers[0].transport = new(http.Transport)
			r.peers[0].transport.RegisterProtocol("http", s)
			registrytest.Call(t, "Withdraw", r.Withdraw)
			for !registrytest.Withdrawn(t, r) {
				<-time.After(250 * time.Millisecond)
			}
			gone := time.Now()
			<-time.After(after)
			s.status, s.since = up, time.Now()
			for registrytest.Withdrawn(t, r) {
				<-time.After(time.Second)
			}
			if seen := time.Since(gone); seen > max(refresh, after+time.Second) || seen-after > refresh/3+time.Second {
				t.Errorf("back after %v, seen after %v", after, seen)
			}
		})
	}
}

// While clients refresh there are as few pauses as the longest pause allows,
// and they end when the last queries begin.
func TestWatchPause(t *testing.T) {
	for range 1000 {
		const longest = 9900 * time.Millisecond
		looks, left := 0, 28900*time.Millisecond
		for left > 0 {
			pause := watchPause(left, longest)
			if pause <= 0 || pause > longest || pause > left {
				t.Fatalf("a pause of %v with %v left", pause, left)
			}
			looks, left = looks+1, left-pause
		}
		if looks != 3 {
			t.Fatalf("%d looks, want 3", looks)
		}
	}
}
