package compare

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestMain(m *testing.M) {
	if IsApp() {
		os.Exit(App())
	}
	os.Exit(m.Run())
}

func TestLastWork(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	r := newRecord()
	if got := r.lastWork(at(100)); !got.IsZero() {
		t.Errorf("without any work: %v", got)
	}
	r.began(1, at(10))
	r.ended(1, at(20))
	r.began(2, at(15))
	r.ended(2, at(18))
	r.began(3, at(40))
	for limit, want := range map[int]int{30: 20, 17: 17, 50: 50, 39: 20} {
		if got := r.lastWork(at(limit)); !got.Equal(at(want)) {
			t.Errorf("until %d: %d, want %d", limit, got.Unix(), want)
		}
	}
	if len(r.arrived) != 1 {
		t.Error("the arrivals were not reported")
	}
}

func TestEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoints{addresses: []string{"leaving", "staying"}}
		if got := e.known(0); len(got) != 2 {
			t.Errorf("before: %v", got)
		}
		e.drop(time.Now())
		_ = sleep(t.Context(), time.Second)
		for lag, want := range map[time.Duration]string{500 * time.Millisecond: "staying", time.Second: "staying", 1001 * time.Millisecond: "leaving staying"} {
			if got := strings.Join(e.known(lag), " "); got != want {
				t.Errorf("a second later, with a lag of %v: %s, want %s", lag, got, want)
			}
		}
	})
}

// With the same seed, a client always sends the same requests.
func TestScript(t *testing.T) {
	w := Defaults().workload
	read := func(seed uint64) (lines []string) {
		c := w.newClient(seed, 3, true, nil, nil)
		for range 1000 {
			took, rest, which := c.next()
			if took < w.shortest || took > w.longest || rest < w.restLeast || rest >= w.restMost {
				t.Fatalf("a request of %v, a rest of %v", took, rest)
			}
			lines = append(lines, fmt.Sprint(took, rest, which))
		}
		return lines
	}
	if !slices.Equal(read(1), read(1)) || slices.Equal(read(1), read(2)) {
		t.Error("the same seed does not give the same script")
	}
}

// The app finishes its requests in flight, and its record shows them.
func TestApp(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a, err := startApp(self, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	counts := &tally{}
	c := Defaults().newClient(1, 1, true, nil, counts)
	began := time.Now()
	answered := make(chan error, 1)
	go func() { answered <- c.request(t.Context(), a.address, 300*time.Millisecond) }()
	<-a.arrived
	a.terminate(time.Minute)
	if err := <-answered; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if last := a.lastWork(time.Now()); last.Sub(began) < 300*time.Millisecond || last.After(time.Now()) {
		t.Errorf("the last work ended %v after the request", last.Sub(began))
	}
	if state := a.cmd.ProcessState; state.ExitCode() != 0 {
		t.Errorf("the app ended with %v", state)
	}
	if err := c.request(t.Context(), a.address, 0); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a request after its end: %v", err)
	}
}

func TestAppThatStaysIsKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a, err := startApp(self, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	c := Defaults().newClient(1, 1, true, nil, nil)
	answered := make(chan error, 1)
	go func() { answered <- c.request(t.Context(), a.address, time.Minute) }()
	<-a.arrived
	a.terminate(0)
	if err := <-answered; err == nil {
		t.Error("its request was answered")
	}
}

// The statistics that both shutdown managers read, in Envoy's format.
func TestStatistics(t *testing.T) {
	answers := map[string]string{
		"/stats": `{"stats": [{"name": "listener.0.0.0.0_8080.downstream_cx_active", "value": 3},
			{"name": "listener.admin.downstream_cx_active", "value": 1},
			{"name": "listener.0.0.0.0_19001.downstream_cx_active", "value": 1},
			{"name": "listener.0.0.0.0_8080.worker_0.downstream_cx_active", "value": 3}]}`,
		"/stats/prometheus": "# TYPE envoy_http_downstream_cx_active gauge\n" +
			"envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"ingress_http\"} 2\n" +
			"envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"ingress_https\"} 5\n" +
			"envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"admin\"} 1\n",
	}
	var failed atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/healthcheck/fail" {
			failed.Store(true)
			return
		}
		_, _ = io.WriteString(w, answers[r.URL.Path])
	}))
	defer server.Close()
	for want, e := range map[int]*envoy{3: forGateway(server.URL, server.Client()), 7: forContour(server.URL, server.Client())} {
		if got, err := e.connections(t.Context()); got != want || err != nil {
			t.Errorf("%d connections, %v; want %d", got, err, want)
		}
		if err := e.failHealthChecks(t.Context()); err != nil || !failed.Swap(false) {
			t.Errorf("failing the health checks: %v", err)
		}
	}
	answers["/stats"], answers["/stats/prometheus"] = `{"stats": []}`, "# nothing\n"
	for _, e := range []*envoy{forGateway(server.URL, server.Client()), forContour(server.URL, server.Client())} {
		if got, err := e.connections(t.Context()); err == nil {
			t.Errorf("without the statistic: %d connections", got)
		}
	}
}

// lastClient includes a client until its copy has expired.
func TestDiscovery(t *testing.T) {
	status := "UP"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		instance := func(port int, status string) map[string]any {
			return map[string]any{"ipAddr": "127.0.0.1", "status": status, "port": map[string]any{"$": port}}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"application": map[string]any{"instance": []any{instance(1, status), instance(2, "UP")}}})
	}))
	defer server.Close()
	d := &discovery{workload: Defaults().workload, service: server.URL, app: "WEB", leaving: "127.0.0.1:1", http: server.Client(), tally: &tally{}}
	before := time.Now()
	got, err := d.fetch(t.Context())
	if err != nil || strings.Join(got, " ") != "127.0.0.1:1 127.0.0.1:2" {
		t.Errorf("%v, %v", got, err)
	}
	last := d.lastClient()
	if last.Before(before.Add(d.refresh)) || last.After(time.Now().Add(d.refresh)) {
		t.Errorf("its copy ends %v after it was fetched", last.Sub(before))
	}
	status = "OUT_OF_SERVICE"
	if got, err := d.fetch(t.Context()); err != nil || strings.Join(got, " ") != "127.0.0.1:2" || !d.lastClient().Equal(last) {
		t.Errorf("without the pod: %v, %v; a client may come until %v", got, err, d.lastClient())
	}
}

// A complete run with an app, without a registry.
func TestRun(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func() *pod {
		a, err := startApp(self, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.kill)
		return &pod{app: a, address: a.address, stop: func() {}}
	}
	w := Defaults().workload
	w.shortest, w.longest, w.lagLeast, w.lagMost, w.byEndpoints = 10*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond, 4
	for _, test := range []struct {
		name       string
		hook       func(context.Context) error
		grace      time.Duration
		early, cut bool
	}{
		{"a hook that is long enough", func(ctx context.Context) error { return sleep(ctx, 2*time.Second) }, time.Minute, false, false},
		{"no hook", func(context.Context) error { return nil }, time.Minute, true, false},
		{"a hook without an end", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, time.Second, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := &run{workload: w, scenario: ByEndpoints, approach: test.name, seed: 1, leaving: start(), staying: start(), calm: 200 * time.Millisecond, grace: test.grace, after: 200 * time.Millisecond}
			r.leaving.hook = test.hook
			result, err := r.play(t.Context())
			if err != nil || result.Early != test.early || result.Cut != test.cut || result.Requests == 0 {
				t.Errorf("%+v, %v", result, err)
			}
			if test.name == "a hook that is long enough" && (len(result.Failures) > 0 || result.Wasted <= 0 || result.Wasted > result.Took) {
				t.Errorf("%+v", result)
			}
		})
	}
	t.Run("a hook that fails", func(t *testing.T) {
		r := &run{workload: w, scenario: ByEndpoints, seed: 1, leaving: start(), staying: start(), grace: time.Minute}
		refused := errors.New("refused")
		r.leaving.hook = func(context.Context) error { return refused }
		if _, err := r.play(t.Context()); !errors.Is(err, refused) {
			t.Errorf("%v", err)
		}
	})
}

// While the file exists, the app closes connections: those with an answer at once,
// idle ones a moment later.
func TestAppThatClosesItsConnections(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	draining := filepath.Join(t.TempDir(), "draining")
	a, err := startApp(self, draining)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	idle, err := net.Dial("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }() // only read
	ask := func() *http.Response {
		t.Helper()
		if _, err := fmt.Fprintf(idle, "POST /?for=0s HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(idle), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // the body is short
		_ = resp.Body.Close()                 // only read
		return resp
	}
	if ask().Close {
		t.Error("it closes connections without the file")
	}
	if err := os.WriteFile(draining, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post("http://"+a.address+"/?for=0s", "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // not needed
	if !resp.Close {
		t.Error("its answer does not close the connection")
	}
	if err := idle.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes of an idle connection, %v, want its end", n, err)
	}
}
