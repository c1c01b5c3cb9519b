package load

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func config(url string) Config {
	return Config{URL: url, Rate: 100, Shortest: time.Millisecond, Longest: 50 * time.Millisecond, KeepAlive: 0.5, Idle: time.Minute, Patience: 10 * time.Second}
}

// until waits until n requests have ended, and then stops the load.
func until(t *testing.T, l *Load, n int64) Counts {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for l.Counts().Requests < n {
		select {
		case <-look.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	return l.Stop()
}

func TestAnswersAreCounted(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Answer(w, r, "one") }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	counts := until(t, Start(t.Context(), config(server.URL)), 60)
	if counts.Failed != 0 || counts.InFlight != 0 || counts.Pods["one"] != counts.Requests {
		t.Errorf("%+v, want all answered by one, and none failed or in flight", counts)
	}
	if n := opened.Load(); n < counts.Requests/4 || n > counts.Requests*9/10 {
		t.Errorf("%d connections for %d requests, want one for each fresh one (a half), and a few kept", n, counts.Requests)
	}
}

// A connection that breaks is counted as a failure, although Go's client would hide it.
func TestNoDroppedConnectionIsHidden(t *testing.T) {
	const reached = 10 // requests before the load, which are not counted
	var dropped, served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := served.Add(1); n <= reached || n%5 != 0 {
			Answer(w, r, "")
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		dropped.Add(1)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	counts := until(t, Start(t.Context(), config(server.URL)), 60)
	if counts.Failed == 0 || counts.Failed != dropped.Load() || served.Load() != counts.Requests+reached {
		t.Errorf("%d of %d requests failed, %d were dropped by the server, which saw %d", counts.Failed, counts.Requests, dropped.Load(), served.Load())
	}
}
