package nginx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/testservers"
)

// rig is nginx before a backend, with a client of its own.
type rig struct {
	*testservers.Nginx
	backend *testservers.Backend
	client  *http.Client
}

func start(t *testing.T) *rig {
	t.Helper()
	backend := testservers.StartBackend(t)
	return &rig{testservers.StartNginx(t, backend), backend, testservers.Client(t)}
}

func (r *rig) pod() drain.Pod { return drain.Pod{IP: "10.9.8.7", AppPorts: []int{r.Port}} }

func (r *rig) counter(t *testing.T) *Counter {
	t.Helper()
	c := newCounter(t, r.Status, r.pod())
	c.proxy.Sockets = testservers.Sockets{r.Port, r.Second, r.HTTP2, c.proxy.PagePort}
	return c
}

func newCounter(t *testing.T, status string, pod drain.Pod) *Counter {
	t.Helper()
	c, err := New(Config{Status: status}, pod)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) hold(t *testing.T) *testservers.Held {
	t.Helper()
	return r.backend.Hold(t, r.client, url(r.Port))
}

func url(port int) string     { return "http://" + address(port) }
func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// harness drives a rig for the suite.
type harness struct{ *rig }

func (h harness) Counter(t *testing.T) drain.Counter { return h.counter(t) }

func (h harness) Begin(t *testing.T) func() {
	held := h.hold(t)
	return func() { held.End(t) }
}

func (h harness) Idle(t *testing.T) bool {
	testservers.IdleConnection(t, address(h.Port))
	testservers.Connect(t, address(h.Port)) // and one that says nothing
	return true
}

func (h harness) Break(t *testing.T) func() {
	h.Reload(t, "stub_status; deny all;")
	return func() { h.Reload(t, "stub_status;") }
}

func (h harness) Arrivals() bool { return true }

func TestSuite(t *testing.T) {
	countertest.Run(t, func(t *testing.T) countertest.Harness { return harness{start(t)} })
}

var (
	becomes  = countertest.Becomes
	anything = countertest.Anything
	readable = countertest.Readable
	notZero  = countertest.NotZero
)

func wantError(t *testing.T, c *Counter, parts ...string) {
	t.Helper()
	r, err := c.Count(t.Context())
	if err == nil {
		t.Fatalf("got %+v, want an error", r)
	}
	for _, part := range append(parts, "LASTCALL_NGINX_STATUS") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Errorf("%q tells a secret", err)
	}
}

func TestHTTP2CountsStreams(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	client := testservers.HTTP2Client(t)
	first := r.backend.Hold(t, client, url(r.HTTP2))
	second := r.backend.Hold(t, client, url(r.HTTP2))
	becomes(t, c, 2, readable)
	first.End(t)
	becomes(t, c, 1, readable)
	second.End(t)
	becomes(t, c, 0, readable) // with the connection open, and idle
}

func TestRequestsOnTheirWayIn(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	conn := testservers.Connect(t, address(r.Port))
	if _, err := conn.Write([]byte("POST /upload HTTP/1.1\r\nHost: test\r\n")); err != nil {
		t.Fatal(err)
	}
	becomes(t, c, 1, readable) // half a header
	if _, err := conn.Write([]byte("Content-Length: 4\r\n\r\nab")); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		becomes(t, c, 1, countertest.Nothing) // half a body
	}
	if got := testservers.Say(t, conn, "cd"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatalf("answered %q", got)
	}
	becomes(t, c, 0, readable)
}

func TestWebSocketIsWork(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	conn := testservers.WebSocket(t, address(r.Port))
	becomes(t, c, 1, readable)
	conn.Close()
	becomes(t, c, 0, readable)
}

func TestAbortedRequest(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	held := r.hold(t)
	becomes(t, c, 1, readable)
	held.Abort()
	becomes(t, c, 0, readable)
}

func TestReloadKeepsWhatOldWorkersHave(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	held := r.hold(t)
	becomes(t, c, 1, readable)
	for range 2 {
		r.Reload(t, "stub_status;")
		// The worker that read the page may close the connection under a
		// reading; that is an error, and no other number.
		becomes(t, c, 1, countertest.Unreadable)
	}
	second := r.hold(t) // in a new worker
	becomes(t, c, 2, readable)
	held.End(t)
	becomes(t, c, 1, readable)
	second.End(t)
	becomes(t, c, 0, readable)
}

func TestQuitIsCountedToItsEnd(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	testservers.IdleConnection(t, address(r.Port))
	held := r.hold(t)
	elsewhere := r.backend.Hold(t, r.client, url(r.Second)) // not on the app's port
	becomes(t, c, 2, readable)
	r.Signal(t, syscall.SIGQUIT)
	held.End(t)
	becomes(t, c, 1, notZero)
	wantError(t, newCounter(t, r.Status, drain.Pod{}), "connection refused", "LASTCALL_APP_PORT")
	for range 10 {
		becomes(t, c, 1, notZero)
	}
	elsewhere.End(t)
	r.WaitExit(t)
	becomes(t, c, 0, notZero)
	wantError(t, newCounter(t, r.Status, drain.Pod{}), "connection refused", "LASTCALL_APP_PORT")
}

func TestKilledIsGoneForGood(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	blind := newCounter(t, r.Status, drain.Pod{})
	held := r.hold(t)
	becomes(t, c, 1, readable)
	becomes(t, blind, 1, readable)
	r.Kill()
	if err := held.Answer(t); err == nil {
		t.Fatal("the request in flight has outlived nginx")
	}
	becomes(t, c, 0, notZero)
	wantError(t, blind, "LASTCALL_APP_PORT")
}

func TestStartedAnew(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	for range 5 {
		r.hold(t).End(t)
	}
	becomes(t, c, 0, readable)
	before, err := c.Count(t.Context())
	if err != nil || before.Arrived < 5 {
		t.Fatalf("got %+v, %v, want 5 arrivals", before, err)
	}
	r.Signal(t, syscall.SIGTERM)
	r.WaitExit(t)
	r.Start(t)
	becomes(t, c, 0, anything)
	after, err := c.Count(t.Context())
	if err != nil || after.Arrived >= before.Arrived {
		t.Fatalf("got %+v, %v after a new start, %+v before", after, err, before)
	}
	if again, err := c.Count(t.Context()); err != nil || again != after {
		t.Fatalf("got %+v, %v, want %+v as before", again, err, after)
	}
}

// A worker that crashes leaves its requests on the page. The drain is held,
// and never ended too early.
func TestCrashedWorkerHoldsTheDrain(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	held := r.hold(t)
	becomes(t, c, 1, readable)
	r.KillWorkers(t)
	if err := held.Answer(t); err == nil {
		t.Fatal("the request in flight has outlived its worker")
	}
	for range 10 {
		if got, err := c.Count(t.Context()); err == nil && got.InFlight < 1 {
			t.Fatalf("got %+v: nginx forgets a crash now; say so in the package's comment", got)
		}
	}
}

func TestFrozenIsAnErrorWithinTheDeadline(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	becomes(t, c, 0, readable)
	r.Freeze(t)
	defer r.Thaw(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got, err := c.Count(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v, want an error that is context.DeadlineExceeded", got, err)
	}
}

func TestErrorsSayWhatToCheck(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"no credentials", 401, "", "set its credentials in the URL"},
		{"denied", 403, "", "allow requests from this pod"},
		{"not there", 404, "", "not at this path"},
		{"failing", 500, "", "see its log"},
		{"garbage", 200, "<html>Welcome to nginx!</html>", "the location must hold `stub_status;`"},
		{"empty", 200, "", "not stub_status"},
		{"huge", 200, strings.Repeat(answer, 1000), "longer than 4096 bytes"},
		{"a cached copy", 200, strings.NewReplacer("Reading: 1", "Reading: 0", "Writing: 2", "Writing: 0").Replace(answer), "cached copy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			defer s.Close()
			secret := strings.Replace(s.URL, "http://", "http://user:hunter2@", 1)
			wantError(t, newCounter(t, secret, drain.Pod{AppPorts: []int{1}}), test.want)
		})
	}
}

func TestNewNamesTheVariable(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8080/stub_status", "http://user:hunter2@", "unix:///run/nginx.sock"} {
		_, err := New(Config{Status: bad}, drain.Pod{})
		if err == nil || !strings.Contains(err.Error(), "LASTCALL_NGINX_STATUS must be an http:// or https:// URL") || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
