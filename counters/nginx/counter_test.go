package nginx

import (
	"strings"
	"syscall"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// rig is nginx in front of a backend, with its own client.
type rig struct {
	*servers.Nginx
	proxy countertest.Proxy
}

func start(t *testing.T) *rig {
	t.Helper()
	backend := servers.StartBackend(t)
	n := servers.StartNginx(t, backend)
	return &rig{n, countertest.Proxy{Backend: backend, Client: servers.Client(t), Port: n.Port, HTTP2: n.HTTP2}}
}

func (r *rig) pod() drain.Pod { return drain.Pod{IP: "10.9.8.7", AppPorts: []int{r.Port}} }

func (r *rig) counter(t *testing.T) *Counter {
	t.Helper()
	c := newCounter(t, r.Status, r.pod())
	c.proxy.Sockets = servers.Sockets{r.Port, r.Second, r.HTTP2, c.proxy.PagePort}
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

// harness drives a rig for the suite.
type harness struct {
	countertest.Proxy
	rig *rig
}

func (h harness) Counter(t *testing.T) drain.Counter { return h.rig.counter(t) }

func (h harness) Break(t *testing.T) func() {
	h.rig.Reload(t, "stub_status; deny all;")
	return func() { h.rig.Reload(t, "stub_status;") }
}

// Hide makes the page end before the numbers that are counted.
func (h harness) Hide(t *testing.T) (counter func() drain.Counter, hide, repair func()) {
	const half = `return 200 "Active connections: 2 \nserver accepts handled requests\n 9 9 9 \n";`
	return func() drain.Counter { return h.Counter(t) }, func() { h.rig.Reload(t, half) }, func() { h.rig.Reload(t, "stub_status;") }
}

func (h harness) Stale(t *testing.T) (c drain.Counter, store, repair func()) {
	cache := countertest.NewCache(t, h.rig.Status)
	return newCounter(t, cache.URL+"/stub_status", h.rig.pod()), cache.Store, cache.Repair
}

// onSocket is a harness whose page is on a unix socket.
type onSocket struct{ harness }

func (h onSocket) Counter(t *testing.T) drain.Counter {
	t.Helper()
	c := newCounter(t, h.rig.StatusSocket, h.rig.pod())
	c.proxy.Sockets = servers.Sockets{h.rig.Port, h.rig.Second, h.rig.HTTP2}
	return c
}

func TestSuite(t *testing.T) {
	t.Run("page", func(t *testing.T) {
		countertest.Run(t, func(t *testing.T) countertest.Harness {
			r := start(t)
			return harness{r.proxy, r}
		})
	})
	t.Run("unix socket", func(t *testing.T) {
		countertest.Run(t, func(t *testing.T) countertest.Harness {
			r := start(t)
			return onSocket{harness{r.proxy, r}}
		})
	})
}

func TestSecured(t *testing.T) {
	r := start(t)
	s := countertest.NewSecured(t, r.Status)
	c, err := New(Config{Status: s.URL + "/stub_status", CAFile: s.CAFile, TokenFile: s.TokenFile}, r.pod())
	if err != nil {
		t.Fatal(err)
	}
	held := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	held.End(t)
	becomes(t, c, 0, readable)
	wantError(t, newCounter(t, s.URL+"/stub_status", r.pod()), "LASTCALL_NGINX_CA_FILE")
	noToken, err := New(Config{Status: s.URL + "/stub_status", CAFile: s.CAFile}, r.pod())
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, noToken, "LASTCALL_NGINX_TOKEN_FILE")
}

// Another nginx answers suddenly, as when a new binary has taken over. The work
// of the previous one is unknown until its connections have ended.
func TestReplacedWithWorkInFlight(t *testing.T) {
	r := start(t)
	other := start(t)
	cache := countertest.NewCache(t, r.Status)
	c := newCounter(t, cache.URL+"/stub_status", r.pod())
	c.proxy.Sockets = servers.Sockets{r.Port}
	for range 20 {
		becomes(t, c, 0, readable)
	}
	held := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	cache.Move(other.Status)
	for range 5 {
		wantError(t, c, "restarted with requests in flight")
	}
	held.End(t)
	r.proxy.Client.CloseIdleConnections()
	becomes(t, c, 0, notZero)
	blind := newCounter(t, cache.URL+"/stub_status", drain.Pod{})
	cache.Move(r.Status)
	held = r.proxy.Hold(t)
	becomes(t, blind, 1, readable)
	cache.Move(other.Status)
	wantError(t, blind, "restarted with requests in flight", "LASTCALL_APP_PORT")
	held.End(t)
}

var (
	becomes  = countertest.Becomes
	anything = countertest.Anything
	readable = countertest.Readable
	notZero  = countertest.NotZero
)

func wantError(t *testing.T, c *Counter, parts ...string) {
	t.Helper()
	countertest.WantError(t, c, append(parts, "LASTCALL_NGINX_STATUS")...)
}

func TestEndsEven(t *testing.T) {
	r := start(t)
	r.proxy.EndsEven(t, r.counter(t))
}

func TestReloadKeepsWhatOldWorkersHave(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	held := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	for range 2 {
		r.Reload(t, "stub_status;")
		// The worker that served the page may close the connection during a
		// reading. That is an error, and not another number.
		becomes(t, c, 1, countertest.Unreadable)
	}
	second := r.proxy.Hold(t) // in a new worker
	becomes(t, c, 2, readable)
	held.End(t)
	becomes(t, c, 1, readable)
	second.End(t)
	becomes(t, c, 0, readable)
}

func TestQuitIsCountedToItsEnd(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	servers.IdleConnection(t, countertest.Address(r.Port))
	held := r.proxy.Hold(t)
	elsewhere := r.proxy.Backend.Hold(t, r.proxy.Client, countertest.Base(r.Second)) // not on the app's port
	becomes(t, c, 2, readable)
	r.Signal(t, syscall.SIGQUIT)
	held.End(t)
	// The master and both workers listened on the page's port.
	blind := newCounter(t, r.Status, drain.Pod{})
	wait.Until(t, "nobody listening on the page's port", func() bool {
		_, err := blind.Count(t.Context())
		return err != nil && strings.Contains(err.Error(), "connection refused")
	})
	becomes(t, c, 1, notZero)
	wantError(t, blind, "connection refused", "LASTCALL_APP_PORT")
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
	held := r.proxy.Hold(t)
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
		r.proxy.Hold(t).End(t)
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

// A worker that crashes leaves its requests on the page. The drain waits, and
// never ends too early.
func TestCrashedWorkerHoldsTheDrain(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	held := r.proxy.Hold(t)
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
	countertest.Frozen(t, r.Freeze, r.Thaw, countertest.ReadingOf(c))
}

func TestErrorsSayWhatToCheck(t *testing.T) {
	countertest.Faults(t, []countertest.Fault{
		{Name: "garbage", Status: 200, Body: "<html>Welcome to nginx!</html>", Says: "the location must hold `stub_status;`"},
		{Name: "empty", Status: 200, Body: "", Says: "not stub_status"},
		{Name: "huge", Status: 200, Body: strings.Repeat(answer, 1000), Says: "longer than 4096 bytes"},
		{Name: "a cached copy", Status: 200, Body: strings.NewReplacer("Reading: 1", "Reading: 0", "Writing: 2", "Writing: 0").Replace(answer), Says: "cached copy"},
	}, func(t *testing.T, url string, f countertest.Fault) {
		wantError(t, newCounter(t, url, drain.Pod{AppPorts: []int{1}}), f.Says)
	})
}

func TestNewNamesTheVariable(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8080/stub_status", "http://user:hunter2@", "unix://run/nginx.sock"} {
		_, err := New(Config{Status: bad}, drain.Pod{})
		if err == nil || !strings.Contains(err.Error(), "LASTCALL_NGINX_STATUS must be ") || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
