package system

import (
	"encoding/pem"
	"fmt"
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

// metered is an app with a metrics page on its own port. Its requests end before a
// gauge can show them.
type metered struct {
	*httptest.Server
	requests atomic.Int64
	page     func(requests int64) string
}

func startMetered(t *testing.T, page func(int64) string) *metered {
	t.Helper()
	m := &metered{page: page}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			_, _ = fmt.Fprint(w, m.page(m.requests.Load()))
			return
		}
		m.requests.Add(1)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *metered) port() string {
	return strconv.Itoa(m.Listener.Addr().(*net.TCPAddr).Port)
}

// settings returns the settings of the prometheus counter. With them, a drain ends
// a moment after the app becomes quiet.
func (m *metered) settings(more ...string) []string {
	return append([]string{
		"LASTCALL_COUNTERS=prometheus", "LASTCALL_PROMETHEUS_URL=" + m.URL + "/metrics", "LASTCALL_PROMETHEUS_METRIC=in_flight",
		"LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=400ms", "LASTCALL_GRACE_PERIOD=10m",
	}, more...)
}

func gaugeAndTotal(requests int64) string {
	return fmt.Sprintf("in_flight 0\nrequests_total %d\n", requests)
}

// Short requests that keep arriving prevent the end of the drain, however they are
// detected.
func TestShortRequestsThatKeepComing(t *testing.T) {
	for name, settings := range map[string]func(*testing.T, *metered) []string{
		"by a total":        func(_ *testing.T, m *metered) []string { return m.settings("LASTCALL_PROMETHEUS_TOTAL=requests_total") },
		"by the app's port": func(_ *testing.T, m *metered) []string { return m.settings("LASTCALL_APP_PORT=" + m.port()) },
		"by the app's port beside a file": func(t *testing.T, m *metered) []string {
			file := startApp(t) // its file says that nothing is in flight
			return append(file.env(), "LASTCALL_APP_PORT="+m.port(), "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=400ms", "LASTCALL_GRACE_PERIOD=10m")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := startMetered(t, gaugeAndTotal)
			s := sidecar.Start(t, &program, settings(t, app)...)
			hook := s.PreStop(t.Context())
			s.Await(t, "the drain", func(status drain.Status) bool { return status.Phase == drain.Draining })
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for range 40 {
				<-tick.C
				answer, err := client.Get(app.URL)
				if err != nil {
					t.Fatal(err)
				}
				_ = answer.Body.Close()
				waiting(t, hook)
			}
			drains(t, hook)
		})
	}
}

func TestArrivalsThatAreNotSeenAreTold(t *testing.T) {
	app := startMetered(t, gaugeAndTotal)
	const warning = "requests that come and go between two readings are not seen"
	if s := sidecar.Start(t, &program, app.settings()...); !strings.Contains(s.Log(), warning) {
		t.Error("nothing sees arrivals, and the log does not say so")
	}
	for _, seen := range []string{"LASTCALL_APP_PORT=" + app.port(), "LASTCALL_PROMETHEUS_TOTAL=requests_total"} {
		if s := sidecar.Start(t, &program, app.settings(seen)...); strings.Contains(s.Log(), warning) {
			t.Errorf("%s: the log says that arrivals are not seen", seen)
		}
	}
}

// The app's port is used to detect arrivals only if a counter needs it.
func TestArrivalsCounter(t *testing.T) {
	app := startMetered(t, gaugeAndTotal)
	file := startApp(t)
	for _, test := range []struct {
		settings []string
		want     string
	}{
		{[]string{"LASTCALL_COUNTERS=prometheus"}, "prometheus arrivals"},
		{[]string{"LASTCALL_COUNTERS=prometheus", "LASTCALL_PROMETHEUS_TOTAL=requests_total"}, "prometheus"},
		{[]string{"LASTCALL_COUNTERS=prometheus,tcp"}, "prometheus tcp"},
		{[]string{"LASTCALL_COUNTERS=file", "LASTCALL_FILE_PATH=" + file.file}, "file arrivals"},
		{[]string{"LASTCALL_COUNTERS=prometheus,file", "LASTCALL_FILE_PATH=" + file.file}, "prometheus file arrivals"},
		{[]string{"LASTCALL_COUNTERS=nginx"}, "nginx"},
		{[]string{"LASTCALL_COUNTERS=tcp"}, "tcp"},
	} {
		s := sidecar.Start(t, &program, app.settings(append(test.settings, "LASTCALL_APP_PORT="+app.port())...)...)
		var names []string
		for _, c := range s.Status(t).Counters {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%v: the counters are %s, want %s", test.settings, got, test.want)
		}
	}
}

// A metric that does not exist before the first request counts as zero while the
// app has no connection except the sidecar's. Otherwise it is unknown.
func TestMetricThatIsToCome(t *testing.T) {
	app := startMetered(t, func(int64) string { return "up 1\n" })
	s := sidecar.Start(t, &program, app.settings("LASTCALL_APP_PORT="+app.port())...)
	conn := servers.Connect(t, app.Listener.Addr().String())
	if answer := servers.Say(t, conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); !strings.Contains(answer, " 200 ") {
		t.Fatal(answer)
	}
	hook := s.PreStop(t.Context())
	s.Await(t, "the metric being unknown", func(status drain.Status) bool {
		return status.Phase == drain.Draining && strings.Contains(status.Counters[0].Error, "the app has 1 open connections")
	})
	waiting(t, hook)
	check(t, conn.Close())
	drains(t, hook)
	s.AwaitLog(t, "wrong if LASTCALL_PROMETHEUS_METRIC has a typing error")
}

// The drain does not wait for an app that is gone for good.
func TestMeteredAppIsGone(t *testing.T) {
	app := startMetered(t, func(int64) string { return "in_flight 1\n" })
	s := sidecar.Start(t, &program, app.settings("LASTCALL_APP_PORT="+app.port())...)
	hook := s.PreStop(t.Context())
	s.Await(t, "the drain waiting", holds(1))
	waiting(t, hook)
	check(t, app.Listener.Close())
	app.CloseClientConnections()
	drains(t, hook)
}

// The page requires TLS and a token. The authority and the token are in files.
func TestMetricsWithTLSAndToken(t *testing.T) {
	dir := t.TempDir()
	app := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprint(w, gaugeAndTotal(0))
	}))
	t.Cleanup(app.Close)
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	check(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: app.Certificate().Raw}), 0o600))
	check(t, os.WriteFile(token, []byte("hunter2\n"), 0o600))
	s := sidecar.Start(t, &program, "LASTCALL_COUNTERS=prometheus", "LASTCALL_PROMETHEUS_URL="+app.URL, "LASTCALL_PROMETHEUS_METRIC=in_flight",
		"LASTCALL_PROMETHEUS_CA_FILE="+ca, "LASTCALL_PROMETHEUS_TOKEN_FILE="+token, "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_QUIET=100ms")
	drains(t, s.PreStop(t.Context()))
}
