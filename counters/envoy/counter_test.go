package envoy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/test/servers"
)

// rig is Envoy in front of a backend, with its own client.
type rig struct {
	*servers.Envoy
	proxy countertest.Proxy
}

func start(t *testing.T) *rig { t.Helper(); return startWith(t, servers.EnvoyOptions{}) }

func startWith(t *testing.T, o servers.EnvoyOptions) *rig {
	t.Helper()
	backend := servers.StartBackend(t)
	e := servers.StartEnvoy(t, backend, o)
	return &rig{e, countertest.Proxy{Backend: backend, Client: servers.Client(t), Port: e.Port, HTTP2: e.Port, Raw: e.Raw}}
}

func (r *rig) counter(t *testing.T) *Counter { t.Helper(); return r.counterOf(t, "", r.Port) }

func (r *rig) counterOf(t *testing.T, listeners string, appPort int) *Counter {
	t.Helper()
	pod := drain.Pod{IP: "10.9.8.7"}
	if appPort != 0 {
		pod.AppPorts = []int{appPort}
	}
	return r.counterWith(t, Config{Admin: r.Admin, Listeners: listeners}, pod)
}

// counterAt returns a counter that reads the admin interface at another
// address.
func (r *rig) counterAt(t *testing.T, admin string) *Counter {
	t.Helper()
	return r.counterWith(t, Config{Admin: admin}, drain.Pod{IP: "10.9.8.7", AppPorts: []int{r.Port}})
}

func (r *rig) counterWith(t *testing.T, cfg Config, pod drain.Pod) *Counter {
	t.Helper()
	c, err := New(cfg, pod)
	if err != nil {
		t.Fatal(err)
	}
	c.proxy.Sockets = servers.Sockets{r.Port, r.Raw, r.Mixed, r.Ready, r.AdminPort}
	return c
}

// get makes a request. It returns the status, and whether the connection ends
// with the answer.
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

// keep returns a client with its own single connection, which has received an
// answer.
func keep(t *testing.T, port int) *http.Client {
	t.Helper()
	client := servers.Client(t)
	if status, closed := get(t, client, countertest.Base(port)); status != 200 || closed {
		t.Fatalf("got %d, and the connection ends: %v", status, closed)
	}
	return client
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
type harness struct {
	countertest.Proxy
	rig *rig
}

func (h harness) Counter(t *testing.T) drain.Counter { return h.rig.counter(t) }

func (h harness) Break(t *testing.T) func() {
	h.rig.Freeze(t)
	return func() { h.rig.Thaw(t) }
}

// Hide omits the requests of one manager from the statistics.
func (h harness) Hide(t *testing.T) (counter func() drain.Counter, hide, repair func()) {
	without := newFilter(t, h.rig.Admin)
	return func() drain.Counter { return h.rig.counterAt(t, without.url) },
		func() { without.hide(`http\.ingress_http\..*`) },
		func() { without.hide(`^$`) }
}

func (h harness) Stale(t *testing.T) (c drain.Counter, store, repair func()) {
	cache := countertest.NewCache(t, h.rig.Admin)
	return h.rig.counterAt(t, cache.URL), cache.Store, cache.Repair
}

// onSocket is a harness whose admin interface is on a unix socket.
type onSocket struct {
	countertest.Proxy
	rig *rig
}

func (h onSocket) Counter(t *testing.T) drain.Counter { return h.rig.counter(t) }

func (h onSocket) Break(t *testing.T) func() {
	h.rig.Freeze(t)
	return func() { h.rig.Thaw(t) }
}

func (h onSocket) Except() map[countertest.Row]string {
	return map[countertest.Row]string{
		countertest.Missing: "what is missing is tried on the admin interface's port, and TestStatisticsThatAreLeftOut tries it on Envoy's own settings",
		countertest.Stale:   "a cache is tried before the admin interface's port",
	}
}

// filtered is a proxy in front of the admin interface. It omits statistics, as
// Envoy would with another stats_matcher.
type filtered struct {
	url string
	mu  sync.Mutex
	out *regexp.Regexp
}

func newFilter(t *testing.T, admin string) *filtered {
	t.Helper()
	f := &filtered{out: regexp.MustCompile("^$")}
	target, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Request.URL.Path != "/stats" {
			return nil
		}
		var answer struct {
			Stats []map[string]any `json:"stats"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		answer.Stats = slices.DeleteFunc(answer.Stats, func(one map[string]any) bool {
			name, _ := one["name"].(string)
			return f.out.MatchString(name)
		})
		body, err := json.Marshal(answer)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		resp.ContentLength = int64(len(body))
		resp.Header.Del("Content-Length")
		return err
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

func (f *filtered) hide(pattern string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out = regexp.MustCompile(pattern)
}

func TestSuite(t *testing.T) {
	t.Run("port", func(t *testing.T) {
		countertest.Run(t, func(t *testing.T) countertest.Harness {
			r := start(t)
			return harness{r.proxy, r}
		})
	})
	t.Run("unix socket", func(t *testing.T) {
		countertest.Run(t, func(t *testing.T) countertest.Harness {
			r := startWith(t, servers.EnvoyOptions{AdminSocket: true})
			return onSocket{r.proxy, r}
		})
	})
}

func TestEndsEven(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	even := r.proxy.EndsEven(t, c)

	servers.IdleConnection(t, countertest.Address(r.Mixed))
	even("idle on a listener of both kinds")
	conn := connectFrom(t, "127.0.0.2", countertest.Address(r.Mixed))
	becomes(t, c, 1, readable)
	mixed := r.proxy.Backend.Hold(t, r.proxy.Client, countertest.Base(r.Mixed))
	becomes(t, c, 2, readable)
	conn.Close()
	becomes(t, c, 1, readable)
	mixed.End(t)
	even("both kinds")

	ready := r.proxy.Backend.Hold(t, r.proxy.Client, countertest.Base(r.Ready)) // for readiness, according to its manager's name
	even("readiness listener")
	ready.End(t)
}

func TestArrivals(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	before := becomes(t, c, 0, readable).Arrived
	for i, conn := range []func(){
		func() { get(t, r.proxy.Client, countertest.Base(r.Port)) },
		func() { get(t, r.proxy.Client, countertest.Base(r.Mixed)) },
		func() { servers.Connect(t, countertest.Address(r.Raw)).Close() },
		func() { connectFrom(t, "127.0.0.2", countertest.Address(r.Mixed)).Close() },
	} {
		conn()
		arrives(t, c, before+uint64(i)+1)
	}
	for range 3 {
		get(t, r.proxy.Client, countertest.Base(r.Port)+"/healthz")
		get(t, r.proxy.Client, countertest.Base(r.Ready))
		get(t, r.proxy.Client, r.Admin+"/stats")
	}
	becomes(t, c, 0, readable)
	arrives(t, c, before+4)
}

// arrives waits until the arrivals are want and nothing is in flight.
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
	web := r.proxy.Hold(t)
	raw := servers.Connect(t, countertest.Address(r.Raw))
	ready := r.proxy.Backend.Hold(t, r.proxy.Client, countertest.Base(r.Ready))
	mixed := r.proxy.Backend.Hold(t, r.proxy.Client, countertest.Base(r.Mixed))
	mixedRaw := connectFrom(t, "127.0.0.2", countertest.Address(r.Mixed))
	for pattern, want := range map[string]int64{
		"":                              4,
		".":                             5,
		"^ingress_http$":                1,
		"^my.listener$":                 1,
		"^eg-ready-http$":               1,
		"^mixed_http$":                  1, // only the manager, without the plain connection beside it
		fmt.Sprintf("_%d$", r.Port):     1, // a listener includes its managers
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
	for _, end := range []*servers.Held{web, ready, mixed} {
		end.End(t)
	}
	raw.Close()
	mixedRaw.Close()
}

func TestDrain(t *testing.T) {
	r := start(t)
	c := r.counter(t)
	if status, closed := get(t, r.proxy.Client, countertest.Base(r.Port)+"/healthz"); status != 200 || closed {
		t.Fatalf("before: %d, %v", status, closed)
	}
	held := r.proxy.Hold(t)
	raw := servers.Connect(t, countertest.Address(r.Raw))
	becomes(t, c, 2, readable)
	for range 2 { // it can be repeated
		if err := c.StopAccepting(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if status, _ := get(t, r.proxy.Client, countertest.Base(r.Port)+"/healthz"); status != 503 {
		t.Errorf("the health check answers %d", status)
	}
	if status, closed := get(t, r.proxy.Client, countertest.Base(r.Port)); status != 200 || !closed {
		t.Errorf("a late request: %d, and its connection ends: %v", status, closed)
	}
	becomes(t, c, 2, readable)
	held.End(t)
	becomes(t, c, 1, readable)
	if got := servers.Say(t, raw, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("a plain connection: %q", got)
	}
	raw.Close()
	becomes(t, c, 0, readable)

	for range 2 {
		if err := c.StartAccepting(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if status, _ := get(t, r.proxy.Client, countertest.Base(r.Port)+"/healthz"); status != 200 {
		t.Errorf("the health check answers %d when the drain is taken back", status)
	}
	for range 20 {
		if status, _ := get(t, r.proxy.Client, countertest.Base(r.Port)); status != 200 {
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
			held := r.proxy.Hold(t)
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
	countertest.Frozen(t, r.Freeze, r.Thaw, countertest.ReadingOf(c), c.StopAccepting)
}

func TestNoListenersIsZero(t *testing.T) {
	r := startWith(t, servers.EnvoyOptions{NoListeners: true})
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
			r := startWith(t, servers.EnvoyOptions{StatsMatch: prefix})
			wantError(t, r.counter(t), want, "stats_matcher")
		})
	}
}

func wantError(t *testing.T, c *Counter, parts ...string) {
	t.Helper()
	countertest.WantError(t, c, append(parts, "LASTCALL_ENVOY_ADMIN")...)
}

func TestErrorsSayWhatToCheck(t *testing.T) {
	countertest.Faults(t, []countertest.Fault{
		{Name: "garbage", Status: 200, Body: "<html></html>", Says: "not Envoy's list of listeners"},
		{Name: "empty", Status: 200, Body: "", Says: "not Envoy's list of listeners"},
		{Name: "another's JSON", Status: 200, Body: "{}", Says: "not Envoy's statistics"},
		{Name: "huge", Status: 200, Body: `{"stats":["` + strings.Repeat(" ", statsLimit) + `"]}`, Says: "longer than 16777216 bytes"},
	}, func(t *testing.T, url string, f countertest.Fault) {
		c, err := New(Config{Admin: url}, drain.Pod{AppPorts: []int{1}})
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, c, f.Says)
		if f.Status == 200 {
			return
		}
		countertest.ErrorSays(t, c.StopAccepting(t.Context()), f.Says, "LASTCALL_ENVOY_ADMIN")
		countertest.ErrorSays(t, c.StartAccepting(t.Context()), f.Says, "LASTCALL_ENVOY_ADMIN")
	})
}

// Missing statistics of a listener mean zero only if Envoy reports that it has
// no listener.
func TestListThatIsNotEnvoys(t *testing.T) {
	for name, list := range map[string]string{
		"text": "web::127.0.0.1:80\n", "another's JSON": `{"stats":[]}`, "an array": "[]", "null": "null", "cut short": `{"listener_statuses":[`, "empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/listeners" {
					io.WriteString(w, list)
					return
				}
				io.WriteString(w, `{"stats":[]}`)
			}))
			defer s.Close()
			c, err := New(Config{Admin: s.URL}, drain.Pod{AppPorts: []int{1}})
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, c, "not Envoy's list of listeners")
		})
	}
}

func TestNewNamesTheVariables(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:9901", "http://user:hunter2@", "http://h:9901/?x=hunter2", "unix://envoy.sock", "unix:///"} {
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
	for _, good := range []string{"http://127.0.0.1:9901", "http://127.0.0.1:9901/", "https://u:p@envoy/admin", "unix:///run/envoy.sock"} {
		if _, err := New(Config{Admin: good}, drain.Pod{}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
