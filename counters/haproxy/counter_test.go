package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// rig is HAProxy in front of a backend, with its own client.
type rig struct {
	*servers.HAProxy
	proxy countertest.Proxy
}

func start(t *testing.T) *rig {
	t.Helper()
	backend := servers.StartBackend(t)
	h := servers.StartHAProxy(t, backend)
	return &rig{h, countertest.Proxy{Backend: backend, Client: servers.Client(t), Port: h.Port, HTTP2: h.Port, Raw: h.Raw}}
}

// sources returns the ways to read the statistics.
func (r *rig) sources() map[string]string {
	return map[string]string{
		"page":                  r.Stats,
		"page of a counted one": r.WebStats,
		"page by a backend":     r.BackStats,
		"socket of the worker":  "unix://" + r.Socket,
		"socket of the master":  "unix://" + r.Master,
	}
}

func (r *rig) counter(t *testing.T, stats string) *Counter {
	t.Helper()
	return r.counterOf(t, Config{Stats: stats}, drain.Pod{IP: "10.9.8.7", AppPorts: []int{r.Port}})
}

func (r *rig) counterOf(t *testing.T, cfg Config, pod drain.Pod) *Counter {
	t.Helper()
	c, err := New(cfg, pod)
	if err != nil {
		t.Fatal(err)
	}
	c.proxy.Sockets = servers.Sockets{r.Port, r.Raw, r.StatsPort}
	return c
}

// get makes a request, discards the answer's body and returns its status.
func (r *rig) get(t *testing.T, path string) int {
	t.Helper()
	resp, err := r.proxy.Client.Get(countertest.Base(r.Port) + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

var (
	becomes    = countertest.Becomes
	readable   = countertest.Readable
	notZero    = countertest.NotZero
	unreadable = countertest.Unreadable
	anything   = countertest.Anything
	nothing    = countertest.Nothing
)

// harness drives a rig for the suite.
type harness struct {
	countertest.Proxy
	rig   *rig
	stats string
}

func (h harness) Counter(t *testing.T) drain.Counter { return h.rig.counter(t, h.stats) }

func (h harness) Break(t *testing.T) func() {
	path, isSocket := strings.CutPrefix(h.stats, "unix://")
	if !isSocket {
		h.rig.Freeze(t)
		return func() { h.rig.Thaw(t) }
	}
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(path, path+".away")
	return func() { move(path+".away", path) }
}

// cutShort replaces a socket, and omits the end of each answer.
func cutShort(t *testing.T, path string) (repair func()) {
	t.Helper()
	behind := path + ".behind"
	if err := os.Rename(path, behind); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			command, _ := io.ReadAll(conn)
			answer, _ := talkTo(behind, command)
			if i := bytes.LastIndexByte(bytes.TrimRight(answer, "\n"), '\n'); i > 0 {
				answer = answer[:i+1] // to the end of the line before the last
			}
			conn.Write(answer)
			conn.Close()
		}
	}()
	return func() {
		l.Close()
		if err := os.Rename(behind, path); err != nil {
			t.Fatal(err)
		}
	}
}

func talkTo(path string, command []byte) ([]byte, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	conn.(*net.UnixConn).CloseWrite()
	return io.ReadAll(conn)
}

// paged is a harness whose counter reads a page, which can be cached.
type paged struct{ harness }

func (h paged) Stale(t *testing.T) (c drain.Counter, store, repair func()) {
	cache := countertest.NewCache(t, countertest.Base(h.rig.StatsPort))
	return h.rig.counter(t, cache.URL+"/;csv"), cache.Store, cache.Repair
}

// Hide switches to a page that is limited to other frontends.
func (h paged) Hide(t *testing.T) (counter func() drain.Counter, hide, repair func()) {
	between := countertest.NewCache(t, countertest.Base(h.rig.StatsPort))
	return func() drain.Counter { return h.rig.counter(t, between.URL+"/;csv") },
		func() { between.Move(countertest.Base(h.rig.Scoped.Stats)) },
		func() { between.Move(countertest.Base(h.rig.StatsPort)) }
}

// socketed is a harness whose counter reads a runtime socket.
type socketed struct{ harness }

// Hide inserts a program that cuts the answer short. A socket itself cannot be
// limited.
func (h socketed) Hide(t *testing.T) (counter func() drain.Counter, hide, repair func()) {
	path := strings.TrimPrefix(h.stats, "unix://")
	return func() drain.Counter { return h.Counter(t) },
		func() { repair = cutShort(t, path) },
		func() { repair() }
}

func (h socketed) Except() map[countertest.Row]string {
	return map[countertest.Row]string{countertest.Stale: "a runtime socket is HAProxy's own; no cache speaks its protocol"}
}

func TestSuite(t *testing.T) {
	for _, source := range []string{"page", "socket of the worker", "socket of the master"} {
		t.Run(source, func(t *testing.T) {
			countertest.Run(t, func(t *testing.T) countertest.Harness {
				r := start(t)
				h := harness{r.proxy, r, r.sources()[source]}
				if source == "page" {
					return paged{h}
				}
				return socketed{h}
			})
		})
	}
}

// This holds for every way to read the statistics.
func TestEndsEven(t *testing.T) {
	r := start(t)
	for source, stats := range r.sources() {
		t.Run(source, func(t *testing.T) {
			c := r.counter(t, stats)
			even := r.proxy.EndsEven(t, c)
			for path, want := range map[string]int{
				"/": 200, "/returned": 200, "/denied": 403, "/down": 503, "/haproxy-stats": 401,
			} {
				if got := r.get(t, path); got != want {
					t.Fatalf("%s: %d, want %d", path, got, want)
				}
				even(path)
			}

			conn := servers.Connect(t, countertest.Address(r.Raw))
			talk := func() drain.Reading {
				t.Helper()
				if got := servers.Say(t, conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
					t.Fatalf("answered %q", got)
				}
				return becomes(t, c, 1, readable)
			}
			if before, after := talk(), talk(); after.Arrived != before.Arrived {
				t.Fatalf("got %+v after %+v", after, before)
			}
			conn.Close()
			even("TCP that is used")
		})
	}
}

func TestArrivals(t *testing.T) {
	r := start(t)
	for source, stats := range r.sources() {
		t.Run(source, func(t *testing.T) {
			c := r.counter(t, stats)
			becomes(t, c, 0, readable)
			arrived := func() uint64 { t.Helper(); return becomes(t, c, 0, readable).Arrived }
			before := arrived()
			for range 3 {
				r.get(t, "/")
			}
			if got := arrived(); got != before+3 {
				t.Errorf("arrivals went from %d to %d, want 3 more", before, got)
			}
			// Other readers of the statistics are not work.
			other := r.counter(t, r.Stats)
			before = arrived()
			becomes(t, other, 0, readable)
			if got := arrived(); got != before {
				t.Errorf("another reader makes arrivals go from %d to %d", before, got)
			}
		})
	}
}

func TestFrontendsByName(t *testing.T) {
	r := start(t)
	pod := drain.Pod{AppPorts: []int{r.Port}}
	web := r.proxy.Hold(t)
	raw := servers.Connect(t, countertest.Address(r.Raw))
	for source, stats := range r.sources() {
		for pattern, want := range map[string]int64{"": 2, "^web$": 1, "^raw$": 1, "^(web|raw)$": 2, ".": 2, "^stats$": 0} {
			t.Run(source+" "+pattern, func(t *testing.T) {
				c := r.counterOf(t, Config{Stats: stats, Frontends: pattern}, pod)
				// It may be known only at the second reading which frontend
				// carries the request for the page.
				becomes(t, c, want, readable)
				becomes(t, c, want, readable)
				for range 3 {
					becomes(t, c, want, nothing)
				}
			})
		}
		c := r.counterOf(t, Config{Stats: stats, Frontends: "^wbe$"}, pod)
		wantError(t, c, "LASTCALL_HAPROXY_FRONTENDS=^wbe$ matches none", "web, raw, stats")
	}
	raw.Close()
	web.End(t)
}

func wantError(t *testing.T, c *Counter, parts ...string) {
	t.Helper()
	countertest.WantError(t, c, append(parts, "LASTCALL_HAPROXY_STATS")...)
}

func TestMasterStaysRightThroughReloads(t *testing.T) {
	r := start(t)
	c := r.counter(t, "unix://"+r.Master)
	oldest := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	r.Reload(t)
	for range 20 {
		becomes(t, c, 1, unreadable)
	}
	older := r.proxy.Hold(t)
	becomes(t, c, 2, readable)
	r.Reload(t)
	newest := r.proxy.Hold(t)
	becomes(t, c, 3, unreadable)
	before := becomes(t, c, 3, nothing)
	older.End(t)
	becomes(t, c, 2, notZero) // an error while the worker that had it ends
	newest.End(t)
	becomes(t, c, 1, notZero)
	oldest.End(t)
	after := becomes(t, c, 0, notZero)
	if after.Arrived != before.Arrived {
		t.Fatalf("arrivals went from %d to %d when old workers ended", before.Arrived, after.Arrived)
	}
	r.get(t, "/")
	if got := becomes(t, c, 0, notZero); got.Arrived != before.Arrived+1 {
		t.Fatalf("arrivals went from %d to %d by one request", before.Arrived, got.Arrived)
	}
}

func TestReloadOutOfSight(t *testing.T) {
	for _, source := range []string{"page", "page of a counted one", "page by a backend", "socket of the worker"} {
		t.Run(source, func(t *testing.T) {
			r := start(t)
			stats := r.sources()[source]
			c := r.counter(t, stats)
			blind := r.counterOf(t, Config{Stats: stats}, drain.Pod{})
			becomes(t, c, 0, anything)
			becomes(t, blind, 0, anything)
			r.Reload(t) // with nothing in flight: nothing is lost
			// If a backend serves the page, one counter may see the other's
			// request.
			becomes(t, c, 0, anything)
			becomes(t, blind, 0, anything)

			held := r.proxy.Hold(t)
			becomes(t, c, 1, readable)
			becomes(t, blind, 1, readable)
			r.Reload(t)
			wantError(t, blind, "reloaded with work in flight", "unix:///path", "LASTCALL_APP_PORT")
			for range 10 {
				wantError(t, c, "reloaded with work in flight", "unix:///path")
			}
			held.End(t)
			// Or 1 for a moment: each reading has its own connection here, and
			// another thread of HAProxy may not have finished the previous one.
			becomes(t, c, 0, notZero)
			wantError(t, blind, "reloaded with work in flight")

			second := r.proxy.Hold(t) // in the new worker
			becomes(t, c, 1, readable)
			second.End(t)
			becomes(t, c, 0, readable)
		})
	}
}

// Frontends that the page hides are noticed by their connections. The sockets
// hide nothing.
func TestHiddenFrontends(t *testing.T) {
	r := start(t)
	scoped := countertest.Base(r.Scoped.Stats) + "/;csv"
	pod := drain.Pod{AppPorts: []int{r.Port}}
	c := r.counter(t, scoped)
	socket, master := r.counter(t, "unix://"+r.Socket), r.counter(t, "unix://"+r.Master)
	becomes(t, c, 0, readable) // nobody is connected to the hidden frontends

	held := r.proxy.Hold(t)
	for range 5 {
		wantError(t, c, "`stats scope` hides a frontend", "LASTCALL_HAPROXY_FRONTENDS", "has 1 more connections")
	}
	becomes(t, socket, 1, readable)
	becomes(t, master, 1, readable)
	// Each frontend that LASTCALL_HAPROXY_FRONTENDS selects must be on the
	// page.
	becomes(t, r.counterOf(t, Config{Stats: scoped, Frontends: "^raw$"}, pod), 0, readable)
	for _, pattern := range []string{"^web$", "web"} {
		wantError(t, r.counterOf(t, Config{Stats: scoped, Frontends: pattern}, pod), "matches none")
	}
	for pattern, part := range map[string]string{"^(web|raw)$": "^(?:web)$", "raw|web": "web", "^raw$|^web$": "^web$", "^(?:raw|web)": "^(?:web)"} {
		wantError(t, r.counterOf(t, Config{Stats: scoped, Frontends: pattern}, pod), "with its part "+part+":", "`stats scope`")
	}
	becomes(t, r.counterOf(t, Config{Stats: "unix://" + r.Socket, Frontends: "^(web|raw)$"}, pod), 1, readable)
	held.End(t)
	r.proxy.Client.CloseIdleConnections()
	becomes(t, c, 0, unreadable)

	// The frontend through which the page comes may be hidden too. Another
	// frontend's request on the page is taken for the request for the page only
	// once.
	hidden := countertest.Base(r.Scoped.Web) + "/;csv"
	wantError(t, r.counter(t, hidden), "`stats scope` hides")
	wantError(t, r.counterOf(t, Config{Stats: hidden, Frontends: "^web$"}, pod), "`stats scope` hides")
	held = r.proxy.Hold(t)
	wantError(t, r.counter(t, hidden), "`stats scope` hides")
	byName := r.counterOf(t, Config{Stats: hidden, Frontends: "^web$"}, pod)
	_, _ = byName.Count(t.Context()) // the held request is taken for the request for the page
	for range 5 {
		wantError(t, byName, "cached copy")
	}
	held.End(t)
}

func TestSecured(t *testing.T) {
	r := start(t)
	s := countertest.NewSecured(t, countertest.Base(r.StatsPort))
	pod := drain.Pod{AppPorts: []int{r.Port}}
	c := r.counterOf(t, Config{Stats: s.URL + "/;csv", CAFile: s.CAFile, TokenFile: s.TokenFile}, pod)
	held := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	held.End(t)
	becomes(t, c, 0, readable)
	wantError(t, r.counterOf(t, Config{Stats: s.URL + "/;csv"}, pod), "LASTCALL_HAPROXY_CA_FILE")
	wantError(t, r.counterOf(t, Config{Stats: s.URL + "/;csv", CAFile: s.CAFile}, pod), "LASTCALL_HAPROXY_TOKEN_FILE")
	if _, err := New(Config{Stats: "unix:///run/haproxy.sock", CAFile: s.CAFile}, pod); err == nil || !strings.Contains(err.Error(), "LASTCALL_HAPROXY_CA_FILE") {
		t.Errorf("got %v", err)
	}
}

func TestStopIsCountedToItsEnd(t *testing.T) {
	for source := range (&rig{HAProxy: &servers.HAProxy{}}).sources() {
		t.Run(source, func(t *testing.T) {
			r := start(t)
			stats := r.sources()[source]
			c := r.counter(t, stats)
			servers.IdleConnection(t, countertest.Address(r.Port))
			held := r.proxy.Hold(t)
			becomes(t, c, 1, readable)
			elsewhere := servers.Connect(t, countertest.Address(r.Raw)) // not on the app's port
			servers.Say(t, elsewhere, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
			becomes(t, c, 2, readable)
			r.Signal(t, syscall.SIGUSR1)
			if source != "socket of the master" { // the master's stays to the end
				blind := r.counterOf(t, Config{Stats: stats}, drain.Pod{})
				wait.Until(t, "the statistics' end", func() bool {
					_, err := blind.Count(t.Context())
					return err != nil
				})
			}
			becomes(t, c, 2, notZero)
			held.End(t)
			for range 10 {
				becomes(t, c, 1, notZero)
			}
			if source != "socket of the master" {
				wantError(t, r.counterOf(t, Config{Stats: stats}, drain.Pod{}), "LASTCALL_APP_PORT")
			}
			elsewhere.Close()
			r.WaitExit(t)
			becomes(t, c, 0, notZero)
			wantError(t, r.counterOf(t, Config{Stats: stats}, drain.Pod{}), "LASTCALL_APP_PORT")
		})
	}
}

func TestKilledIsGoneForGood(t *testing.T) {
	for source := range (&rig{HAProxy: &servers.HAProxy{}}).sources() {
		t.Run(source, func(t *testing.T) {
			r := start(t)
			stats := r.sources()[source]
			c := r.counter(t, stats)
			blind := r.counterOf(t, Config{Stats: stats}, drain.Pod{})
			held := r.proxy.Hold(t)
			becomes(t, c, 1, readable)
			becomes(t, blind, 1, readable)
			r.Kill()
			if err := held.Answer(t); err == nil {
				t.Fatal("the request in flight has outlived HAProxy")
			}
			becomes(t, c, 0, notZero)
			wantError(t, blind, "LASTCALL_APP_PORT")
			r.Start(t) // the container's restart
			becomes(t, c, 0, unreadable)
		})
	}
}

func TestFrozenIsAnErrorWithinTheDeadline(t *testing.T) {
	r := start(t)
	var calls []func(context.Context) error
	for _, stats := range r.sources() {
		c := r.counter(t, stats)
		becomes(t, c, 0, readable)
		calls = append(calls, countertest.ReadingOf(c))
	}
	countertest.Frozen(t, r.Freeze, r.Thaw, calls...)
}

func TestErrorsSayWhatToCheck(t *testing.T) {
	page := string(recorded(t, "page.csv"))
	countertest.Faults(t, []countertest.Fault{
		{Name: "the page for people", Status: 200, Body: "<html></html>", Says: "ends in `;csv`"},
		{Name: "empty", Status: 200, Body: "", Says: "not HAProxy's statistics"},
		{Name: "cut short", Status: 200, Body: page[:len(page)-30], Says: "statistics"},
		{Name: "huge", Status: 200, Body: strings.Repeat(page, 1+pageLimit/len(page)), Says: "longer than 8388608 bytes"},
		{Name: "CSV at every address", Status: 200, Body: page, Says: "does not show `current conns`"},
		{Name: "a cached copy", Status: 200, Body: idlePage(page), Says: "cached copy"},
	}, func(t *testing.T, url string, f countertest.Fault) {
		cfg := Config{Stats: url}
		if f.Name == "a cached copy" {
			cfg.Frontends = "." // then the HTML page is not read
		}
		c, err := New(cfg, drain.Pod{AppPorts: []int{1}})
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, c, f.Says)
	})
}

// idlePage returns a page with its heading and a frontend without streams.
func idlePage(page string) string {
	head, _, _ := strings.Cut(page, "\n")
	names := strings.Split(strings.TrimPrefix(head, "# "), ",")
	for i, name := range names {
		switch name {
		case "pxname":
			names[i] = "web"
		case "svname":
			names[i] = "FRONTEND"
		case "mode":
			names[i] = "http"
		case "":
		default:
			names[i] = "0"
		}
	}
	return head + "\n" + strings.Join(names, ",") + "\n"
}

// TestBadSockets talks to sockets that are not HAProxy's.
func TestBadSockets(t *testing.T) {
	master := string(recorded(t, "proc.txt"))
	for name, test := range map[string]struct {
		answer func(command string) string
		want   string
	}{
		"silent":              {func(string) string { return "" }, "cut short"},
		"garbage":             {func(string) string { return "garbage\n\n" }, "cut short"},
		"endless":             {func(string) string { return strings.Repeat("x", pageLimit+10) }, "longer than 8388608 bytes"},
		"another program":     {func(string) string { return "+PONG\n\n+PONG\n\n" }, "not that of HAProxy"},
		"a worker's half":     {func(string) string { return "Pid: 7\n\n# pxname,svname,\n\n" }, "column"},
		"workers out of hand": {func(c string) string { return answerOnly(c, "show proc", master) }, "cut short"},
		"workers that vanish": {func(c string) string {
			if c == "show proc" {
				return master + "\n"
			}
			return "Can't find the target PID matching the prefix\n\n"
		}, "the workers keep changing"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					command, _ := io.ReadAll(conn)
					io.WriteString(conn, test.answer(strings.TrimSpace(string(command))))
					conn.Close()
				}
			}()
			c, err := New(Config{Stats: "unix://" + path}, drain.Pod{})
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, c, test.want)
		})
	}
}

func answerOnly(command, want, answer string) string {
	if command == want {
		return answer + "\n"
	}
	return ""
}

func TestSocketWithoutPermission(t *testing.T) {
	err := fmt.Errorf("dial: %w", syscall.EACCES)
	if got := explain(err); !errors.Is(got, syscall.EACCES) || !strings.Contains(got.Error(), "mode or a group") {
		t.Fatalf("got %v", got)
	}
}

func TestNewNamesTheVariables(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8404", "http://user:hunter2@", "unix://", "unix://run/haproxy.sock", "unix:haproxy.sock"} {
		_, err := New(Config{Stats: bad, Frontends: "("}, drain.Pod{})
		if err == nil {
			t.Errorf("%q was taken", bad)
			continue
		}
		for _, want := range []string{"LASTCALL_HAPROXY_STATS must be", "unix:///", "LASTCALL_HAPROXY_FRONTENDS must be a regular expression"} {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%q: got %v, want %q", bad, err, want)
			}
		}
	}
	for _, good := range []string{"http://127.0.0.1:8404/;csv", "https://u:p@h/x;csv", "unix:///run/haproxy.sock", "unix:/run/haproxy.sock"} {
		if _, err := New(Config{Stats: good}, drain.Pod{}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
