package tcp

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/procnet"
	"lastcall/internal/test/wait"
)

var (
	becomes  = countertest.Becomes
	readable = countertest.Readable
)

// newCounter returns a counter for which the test's own connections are work.
func newCounter(t testing.TB, cfg Config, ports ...int) *Counter {
	t.Helper()
	if cfg.Count == "" {
		cfg.Count = Requests
	}
	c, err := New(cfg, ports...)
	if err != nil {
		t.Fatal(err)
	}
	c.ownEnds = nobody
	return c
}

// counter returns a counter of the app's ports that has found out what they
// speak.
func (a *app) counter(t testing.TB, cfg Config) *Counter {
	t.Helper()
	c := newCounter(t, cfg, a.ports()...)
	if a.hand != nil {
		return c // the test itself would have to answer
	}
	if a.speaks == nil {
		a.speaks = make(map[int]protocol)
		for _, port := range a.ports() {
			p, err := ask(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), func(end netip.AddrPort) { a.questions = append(a.questions, end) })
			if err != nil {
				t.Fatal(err)
			}
			if p.mayBeTLS && a.tls == nil {
				p.mayBeTLS = false
			}
			a.speaks[port] = p
		}
		// The app may be slower to close the connections on which it was asked.
		wait.Until(t, "the end of the questions", func() bool {
			n := 0
			err := new(diagnostics).dump(t.Context(), a.ports(), connected, func(s *socket) error {
				if s.remote.Port() != 0 && s.recv > 0 && (s.peerClosed() || s.appClosed()) {
					n++
				}
				return nil
			})
			return err == nil && n == 0
		})
	}
	for port, p := range a.speaks {
		c.speaks(port, p)
	}
	for _, end := range a.questions {
		c.asked.add(end)
	}
	return c
}

// client is one connection to an app.
type client struct {
	net.Conn
	read *bufio.Reader
}

func (a *app) connect(t testing.TB) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", a.address(), wait.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * wait.Patience))
	if a.tls != nil {
		conn = tls.Client(conn, a.tls)
	}
	return &client{conn, bufio.NewReader(conn)}
}

// say writes text.
func (c *client) say(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// get sends a request and does not wait for the answer.
func (c *client) get(t testing.TB, path string) {
	t.Helper()
	c.say(t, "GET "+path+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\n\r\n")
}

// answer reads one whole answer.
func (c *client) answer(t testing.TB, status int) {
	t.Helper()
	resp, err := http.ReadResponse(c.read, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status {
		t.Fatalf("answered %s, want %d", resp.Status, status)
	}
}

// hold sends a request that the app answers only when the gate opens. It
// returns once the app has the request.
func (a *app) hold(t testing.TB, c *client) *gate {
	t.Helper()
	g := a.gate()
	c.get(t, "/hold?id="+g.id)
	g.reached(t)
	return g
}

// harness drives an app for the suite.
type harness struct {
	*app
	counters []*Counter
}

func (h *harness) Counter(t *testing.T) drain.Counter {
	c := h.counter(t, Config{Silence: Silence{}})
	h.counters = append(h.counters, c)
	return c
}

func (h *harness) Begin(t *testing.T) func() {
	c := h.connect(t)
	g := h.hold(t, c)
	return func() {
		g.release()
		c.answer(t, http.StatusOK)
	}
}

func (h *harness) Idle(t *testing.T) bool {
	c := h.connect(t)
	c.get(t, "/")
	c.answer(t, http.StatusOK)
	h.connect(t) // and a connection that sends nothing
	return true
}

func (h *harness) Arrivals() bool { return true }

// Break makes the counter's diagnostics refused, and makes it read a file that
// is not a table of sockets.
func (h *harness) Break(*testing.T) func() {
	for _, c := range h.counters {
		c.lock()
		c.blind, c.table = true, procnet.Table{"testdata/server.py"}
		c.unlock()
	}
	return func() {
		for _, c := range h.counters {
			c.lock()
			c.blind, c.table = false, procnet.Kernel()
			c.unlock()
		}
	}
}

func TestSuite(t *testing.T) {
	for name, start := range serverApps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			countertest.Run(t, func(t *testing.T) countertest.Harness { return &harness{app: start(t)} })
		})
	}
}

func wantCount(t *testing.T, c *Counter, want int64) {
	t.Helper()
	if r, err := c.Count(t.Context()); err != nil || r.InFlight != want {
		t.Fatalf("got %+v, %v, want %d in flight", r, err, want)
	}
}

func nobody([]int) map[netip.AddrPort]bool { return map[netip.AddrPort]bool{} }
