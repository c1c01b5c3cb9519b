package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// The settings of the measured drains. LASTCALL_POLL has its default.
const (
	quiet  = 200 * time.Millisecond
	poll   = 100 * time.Millisecond
	drains = 41 // per counter
)

// work is work that a counter can see.
type work struct {
	env   []string      // tells the sidecar where to look
	begin func() func() // begins the work; the returned function ends it, and returns when the client has its answer
}

// measureDrainEnds measures the time from the end of the last work in flight to the
// return of /prestop, without LASTCALL_QUIET.
func measureDrainEnds(b *testing.B, t *table) {
	polled := fmt.Sprintf("%d ms: POLL + 20 ms", (poll+20*time.Millisecond)/time.Millisecond)
	for _, counter := range []struct {
		name   string
		target string
		start  func(testing.TB) work
	}{
		{"file", "20 ms", fileWork},
		{"nginx", polled, nginxWork},
		{"haproxy", polled, haproxyWork},
		{"envoy", polled, envoyWork},
		{"prometheus", polled, prometheusWork},
		{"tcp", "50 ms", tcpWork},
	} {
		b.Run(counter.name, func(b *testing.B) {
			w := counter.start(b)
			s := sidecar.Start(b, &program, append([]string{
				"LASTCALL_COUNTERS=" + counter.name,
				"LASTCALL_ENDPOINTS_WAIT=0s",
				"LASTCALL_GRACE_PERIOD=10m",
				fmt.Sprintf("LASTCALL_QUIET=%v", quiet),
			}, w.env...)...)
			var values []float64
			for range drains {
				values = append(values, drainOnce(b, s, w))
			}
			t.add("last work in flight ends → /prestop returns, less LASTCALL_QUIET: `"+counter.name+"`",
				values, "ms", 1, counter.target, fmt.Sprintf("%d drains", drains))
		})
	}
}

// drainOnce makes one drain, and returns this time in milliseconds.
func drainOnce(b *testing.B, s *sidecar.Sidecar, w work) float64 {
	b.Helper()
	finish := w.begin()
	hook := s.PreStop(context.Background())
	s.Await(b, "the work in flight", func(status drain.Status) bool {
		return status.Phase == drain.Draining && status.InFlight != nil && *status.InFlight == 1
	})
	// Work ends at random times, not in step with the polls.
	<-time.After(time.Duration(rand.Int64N(int64(2 * poll))))
	finish()
	ended := time.Now()
	answer := sidecar.Wait(b, hook, time.Minute)
	if answer.Code != http.StatusOK {
		b.Fatalf("the hook was answered %d %s %v", answer.Code, answer.Body, answer.Err)
	}
	s.Want(b, http.StatusOK, http.MethodDelete, "/drain")
	return milliseconds(answer.At.Sub(ended) - quiet)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// fileWork ends when its writer has renamed the file.
func fileWork(b testing.TB) work {
	path := filepath.Join(b.TempDir(), "inflight")
	put := func(n int) {
		if err := os.WriteFile(path+".tmp", []byte(strconv.Itoa(n)), 0o600); err != nil {
			b.Fatal(err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			b.Fatal(err)
		}
	}
	put(0)
	return work{
		env: []string{"LASTCALL_FILE_PATH=" + path},
		begin: func() func() {
			put(1)
			return func() { put(0) }
		},
	}
}

// requests are requests that the backend holds. port is that of a proxy, or the
// backend's own.
func requests(b testing.TB, backend *servers.Backend, port int, env ...string) work {
	client := servers.Client(b)
	return work{
		env: append(env, "LASTCALL_APP_PORT="+strconv.Itoa(port)),
		begin: func() func() {
			held := backend.Hold(b, client, "http://127.0.0.1:"+strconv.Itoa(port))
			return func() { held.End(b) }
		},
	}
}

func nginxWork(b testing.TB) work {
	backend := servers.StartBackend(b)
	nginx := servers.StartNginx(b, backend)
	return requests(b, backend, nginx.Port, "LASTCALL_NGINX_STATUS="+nginx.Status)
}

func haproxyWork(b testing.TB) work {
	backend := servers.StartBackend(b)
	haproxy := servers.StartHAProxy(b, backend)
	return requests(b, backend, haproxy.Port, "LASTCALL_HAPROXY_STATS="+haproxy.Stats)
}

func envoyWork(b testing.TB) work {
	backend := servers.StartBackend(b)
	envoy := servers.StartEnvoy(b, backend, servers.EnvoyOptions{})
	return requests(b, backend, envoy.Port, "LASTCALL_ENVOY_ADMIN="+envoy.Admin)
}

// tcpWork is a request to an app. Only the app's connections show it.
func tcpWork(b testing.TB) work {
	backend := servers.StartBackend(b)
	_, port, err := net.SplitHostPort(backend.Address)
	if err != nil {
		b.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		b.Fatal(err)
	}
	return requests(b, backend, number)
}

// prometheusWork is a request to an app that exposes the number of its requests in
// flight.
func prometheusWork(b testing.TB) work {
	var inFlight atomic.Int64
	release := make(chan struct{})
	arrived := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "# TYPE http_server_active_requests gauge\nhttp_server_active_requests{job=\"web\"} %d\n", inFlight.Load())
	})
	mux.HandleFunc("/work", func(w http.ResponseWriter, _ *http.Request) {
		inFlight.Add(1)
		defer inFlight.Add(-1)
		arrived <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "done")
	})
	app := httptest.NewServer(mux)
	b.Cleanup(app.Close)
	client := servers.Client(b)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(app.URL, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	return work{
		env: []string{
			"LASTCALL_APP_PORT=" + port,
			"LASTCALL_PROMETHEUS_URL=" + app.URL + "/metrics",
			`LASTCALL_PROMETHEUS_METRIC=http_server_active_requests{job="web"}`,
		},
		begin: func() func() {
			answered := make(chan error, 1)
			go func() {
				resp, err := client.Get(app.URL + "/work")
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close() // it was read to its end
				}
				answered <- err
			}()
			<-arrived
			return func() {
				release <- struct{}{}
				if err := <-answered; err != nil {
					b.Fatal(err)
				}
			}
		},
	}
}
