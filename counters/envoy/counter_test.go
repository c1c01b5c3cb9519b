package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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

// rig is Envoy before a backend, with a client of its own.
type rig struct {
	*testservers.Envoy
	backend *testservers.Backend
	client  *http.Client
}

func start(t *testing.T) *rig { t.Helper(); return startWith(t, testservers.EnvoyOptions{}) }

func startWith(t *testing.T, o testservers.EnvoyOptions) *rig {
	t.Helper()
	backend := testservers.StartBackend(t)
	return &rig{testservers.StartEnvoy(t, backend, o), backend, testservers.Client(t)}
}

func (r *rig) counter(t *testing.T) *Counter { t.Helper(); return r.counterOf(t, "", r.Port) }

func (r *rig) counterOf(t *testing.T, listeners string, appPort int) *Counter {
	t.Helper()
	pod := drain.Pod{IP: "10.9.8.7"}
	if appPort != 0 {
		pod.AppPorts = []int{appPort}
	}
	c, err := New(Config{Admin: r.Admin, Listeners: listeners}, pod)
	if err != nil {
		t.Fatal(err)
	}
	c.proxy.Sockets = testservers.Sockets{r.Port, r.Raw, r.Mixed, r.Ready, r.AdminPort}
	return c
}

func (r *rig) hold(t *testing.T) *testservers.Held {
	t.Helper()
	return r.backend.Hold(t, r.client, base(r.Port))
}

func base(port int) string    { return "http://" + address(port) }
func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// get makes a request, and returns its status and whether the connection ends
// with it.
func get(t *testing.T, client *http.Client, url string) (status int, closed bool) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Close
}

// connectFrom opens a connection from another address of this machine.
func connectFrom(t *testing.T, source, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 10 * time.Second}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

var (
	becomes  = countertest.Becomes
	readable = countertest.Readable
	notZero  = countertest.NotZero
	nothing  = countertest.Nothing
)

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
	h.Freeze(t)
	return func() { h.Thaw(t) }
}

func (h harness) Arrivals() bool { return true }

func TestSuite(t *testing.T) {
	countertest.Run(t, func(t *testing.T) countertest.Harness { return harness{start(t)} })
}

// TestEndsEven has requests begin and end in all ways there are, and wants 0
// after each of them.
func TestEndsEven(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	even := func(what string) {
		t.Helper()
		for range 3 {
			becomes(t, c, 0, readable)
		}
		if got := becomes(t, c, 0, nothing); got.Arrived != becomes(t, c, 0, nothing).Arrived {
			t.Fatalf("%s: arrivals grow by reading alone", what)
		}
	}
	even("at first") // the statistics are there before the first request

	held := r.hold(t)
	becomes(t, c, 1, readable)
	held.Abort()
	held.Release()
	even("aborted")

	conn := testservers.Connect(t, address(r.Port))
	if got := testservers.Say(t, conn, "GARBAGE\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Fatalf("answered %q", got)
	}
	even("garbage")

	conn = testservers.Connect(t, address(r.Port))
	if _, err := conn.Write([]byte("POST /upload HTTP/1.1\r\nHost: test\r\n")); err != nil {
		t.Fatal(err)
	}
	becomes(t, c, 1, readable) // half a header
	if _, err := conn.Write([]byte("Content-Length: 4\r\n\r\nab")); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		becomes(t, c, 1, nothing) // half a body
	}
	if got := testservers.Say(t, conn, "cd"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatalf("answered %q", got)
	}
	even("uploaded")

	conn = testservers.WebSocket(t, address(r.Port))
	becomes(t, c, 1, readable)
	conn.Close()
	even("WebSocket")

	client := testservers.HTTP2Client(t)
	first := r.backend.Hold(t, client, base(r.Port))
	second := r.backend.Hold(t, client, base(r.Port))
	becomes(t, c, 2, readable)
	first.End(t)
	becomes(t, c, 1, readable)
	second.End(t)
	even("HTTP/2") // with the connection open, and idle

	conn = testservers.Connect(t, address(r.Raw))
	becomes(t, c, 1, readable) // plain TCP: the connection is the work
	conn.Close()
	even("TCP")

	testservers.IdleConnection(t, address(r.Mixed))
	even("idle on a listener of both kinds")
	conn = connectFrom(t, "127.0.0.2", address(r.Mixed))
	becomes(t, c, 1, readable)
	mixed := r.backend.Hold(t, r.client, base(r.Mixed))
	becomes(t, c, 2, readable)
	conn.Close()
	becomes(t, c, 1, readable)
	mixed.End(t)
	even("both kinds")

	ready := r.backend.Hold(t, r.client, base(r.Ready)) // for readiness, by its manager's name
	even("readiness listener")
	ready.End(t)
}

func TestArrivals(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	before := becomes(t, c, 0, readable).Arrived
	for i, conn := range []func(){
		func() { get(t, r.client, base(r.Port)) },
		func() { get(t, r.client, base(r.Mixed)) },
		func() { testservers.Connect(t, address(r.Raw)).Close() },
		func() { connectFrom(t, "127.0.0.2", address(r.Mixed)).Close() },
	} {
		conn()
		arrives(t, c, before+uint64(i)+1)
	}
	for range 3 {
		get(t, r.client, base(r.Port)+"/healthz")
		get(t, r.client, base(r.Ready))
		get(t, r.client, r.Admin+"/stats")
	}
	becomes(t, c, 0, readable)
	arrives(t, c, before+4)
}

// arrives waits until arrivals are want and nothing is in flight.
func arrives(t *testing.T, c *Counter, want uint64) {
	t.Helper()
	tick, deadline := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		got := becomes(t, c, 0, readable)
		if got.Arrived == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("arrivals stay at %d, want %d", got.Arrived, want)
		}
	}
}

func TestListenersByName(t *testing.T) {
	r := start(t)
	web := r.hold(t)
	raw := testservers.Connect(t, address(r.Raw))
	ready := r.backend.Hold(t, r.client, base(r.Ready))
	mixed := r.backend.Hold(t, r.client, base(r.Mixed))
	mixedRaw := connectFrom(t, "127.0.0.2", address(r.Mixed))
	for pattern, want := range map[string]int64{
		"":                              4,
		".":                             5,
		"^ingress_http$":                1,
		"^my.listener$":                 1,
		"^eg-ready-http$":               1,
		"^mixed_http$":                  1, // the manager alone, and not the plain connection beside it
		fmt.Sprintf("_%d$", r.Port):     1, // a listener brings its managers along
		fmt.Sprintf("_%d$", r.Mixed):    2,
		"^(ingress_http|my\\.listener)": 2,
	} {
		t.Run(pattern, func(t *testing.T) {
			c := r.counterOf(t, pattern, r.Port)
			becomes(t, c, want, readable)
			becomes(t, c, want, nothing)
		})
	}
	for _, pattern := range []string{"^ingress$", "^admin$"} {
		wantError(t, r.counterOf(t, pattern, r.Port), "LASTCALL_ENVOY_LISTENERS="+pattern+" matches none", "ingress_http", "my.listener")
	}
	for _, end := range []*testservers.Held{web, ready, mixed} {
		end.End(t)
	}
	raw.Close()
	mixedRaw.Close()
}

func TestDrain(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	if status, closed := get(t, r.client, base(r.Port)+"/healthz"); status != 200 || closed {
		t.Fatalf("before: %d, %v", status, closed)
	}
	held := r.hold(t)
	raw := testservers.Connect(t, address(r.Raw))
	becomes(t, c, 2, readable)
	for range 2 { // it can be repeated
		if err := c.StopAccepting(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if status, _ := get(t, r.client, base(r.Port)+"/healthz"); status != 503 {
		t.Errorf("the health check answers %d", status)
	}
	if status, closed := get(t, r.client, base(r.Port)); status != 200 || !closed {
		t.Errorf("a late request: %d, and its connection ends: %v", status, closed)
	}
	becomes(t, c, 2, readable)
	held.End(t)
	becomes(t, c, 1, readable)
	if got := testservers.Say(t, raw, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("a plain connection: %q", got)
	}
	raw.Close()
	becomes(t, c, 0, readable)

	for range 2 {
		if err := c.StartAccepting(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if status, _ := get(t, r.client, base(r.Port)+"/healthz"); status != 200 {
		t.Errorf("the health check answers %d when the drain is taken back", status)
	}
	for range 20 {
		if status, _ := get(t, r.client, base(r.Port)); status != 200 {
			t.Fatalf("a request when the drain is taken back: %d", status)
		}
	}
}

func TestKilledIsGoneForGood(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			r := start(t)
			c := r.counter(t)
			blind := r.counterOf(t, "", 0)
			held := r.hold(t)
			becomes(t, c, 1, readable)
			becomes(t, blind, 1, readable)
			r.Signal(t, signal)
			r.WaitExit(t)
			if err := held.Answer(t); err == nil {
				t.Fatal("the request in flight has outlived Envoy")
			}
			becomes(t, c, 0, notZero)
			wantError(t, blind, "connection refused", "LASTCALL_APP_PORT")
			if err := c.StopAccepting(t.Context()); err != nil {
				t.Errorf("what is gone takes no new work: %v", err)
			}
			if err := blind.StopAccepting(t.Context()); err == nil {
				t.Error("nothing was told, and no error")
			}
		})
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
		t.Errorf("got %+v, %v, want an error that is context.DeadlineExceeded", got, err)
	}
	if err := c.StopAccepting(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want an error that is context.DeadlineExceeded", err)
	}
}

func TestNoListenersIsZero(t *testing.T) {
	r := startWith(t, testservers.EnvoyOptions{NoListeners: true})
	becomes(t, r.counter(t), 0, nothing)
	wantError(t, r.counterOf(t, "^ingress_http$", r.Port), "matches none")
}

func TestStatisticsThatAreLeftOut(t *testing.T) {
	for prefix, want := range map[string]string{
		"server.":   "the statistics have no listener, though Envoy has 4",
		"http.":     "the statistics have no listener, though Envoy has 4",
		"listener.": "the statistics have no http.",
	} {
		t.Run(prefix, func(t *testing.T) {
			r := startWith(t, testservers.EnvoyOptions{StatsMatch: prefix})
			wantError(t, r.counter(t), want, "stats_matcher")
		})
	}
}

// wantError takes one reading, which is to fail.
func wantError(t *testing.T, c *Counter, parts ...string) {
	t.Helper()
	r, err := c.Count(t.Context())
	if err == nil {
		t.Fatalf("got %+v, want an error", r)
	}
	for _, part := range append(parts, "LASTCALL_ENVOY_ADMIN") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Errorf("%q tells a secret", err)
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
		{"garbage", 200, "<html></html>", "not Envoy's statistics"},
		{"empty", 200, "", "not Envoy's statistics"},
		{"another's JSON", 200, "{}", "not Envoy's statistics"},
		{"no statistics, and no list", 200, `{"stats":[]}`, ""},
		{"huge", 200, `{"stats":["` + strings.Repeat(" ", statsLimit) + `"]}`, "longer than 16777216 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/listeners" {
					fmt.Fprint(w, "web::127.0.0.1:80\n")
					return
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			defer s.Close()
			c, err := New(Config{Admin: strings.Replace(s.URL, "http://", "http://user:hunter2@", 1)}, drain.Pod{AppPorts: []int{1}})
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, c, test.want)
			if test.status == 200 {
				return
			}
			for _, err := range []error{c.StopAccepting(t.Context()), c.StartAccepting(t.Context())} {
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "LASTCALL_ENVOY_ADMIN") {
					t.Errorf("got %v, want %q", err, test.want)
				}
			}
		})
	}
}

func TestNewNamesTheVariables(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:9901", "http://user:hunter2@", "http://h:9901/?x=hunter2", "unix:///envoy.sock"} {
		_, err := New(Config{Admin: bad, Listeners: "("}, drain.Pod{})
		if err == nil {
			t.Errorf("%q was taken", bad)
			continue
		}
		for _, want := range []string{"LASTCALL_ENVOY_ADMIN must be", "LASTCALL_ENVOY_LISTENERS must be a regular expression"} {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%q: got %v, want %q", bad, err, want)
			}
		}
	}
	for _, good := range []string{"http://127.0.0.1:9901", "http://127.0.0.1:9901/", "https://u:p@envoy/admin"} {
		if _, err := New(Config{Admin: good}, drain.Pod{}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
