package tcp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/wait"
)

// verdict is what docs/tcp.md states about a connection.
type verdict string

const (
	no    verdict = "no"
	quiet verdict = "while not silent"
	yes   verdict = "yes"
	// For states that depend on a clock tick.
	rarely verdict = "no, or while not silent"
	mostly verdict = "yes, or while not silent"
)

// row is a connection in a state, and whether it counts.
type row struct {
	name                   string // as in docs/tcp.md
	requests, active, open verdict
	// first is the verdict of `requests` if the first check happens only now,
	// and otherFirst that of `active`. Empty means the same verdict as
	// otherwise.
	first, otherFirst verdict
	on                []string // servers
	// set makes the connection, and returns a function that ends the work on
	// it. look makes the counters check.
	set func(t *testing.T, a *app, look func()) (end func())
}

// Servers, grouped by what they can do.
var (
	every      = []string{"go", "go, TLS", "tomcat", "netty", "jdk", "python", "nginx"}
	withHTTP2  = []string{"go", "go, TLS", "tomcat", "nginx"}
	websockets = []string{"go", "tomcat", "nginx"}
	byHand     = []string{"by hand"}
)

// rows are the rows of docs/tcp.md, in the same order.
var rows = []row{
	{name: "nothing was ever received", requests: no, active: no, open: no, on: every,
		set: func(t *testing.T, a *app, _ func()) func() {
			a.connect(t)
			return nothing
		}},
	{name: "idle keep-alive, after its first request", requests: quiet, active: quiet, open: yes, on: every,
		set: func(t *testing.T, a *app, look func()) func() {
			c := a.settle(t)
			look()
			c.get(t, "/")
			c.answer(t, http.StatusOK)
			return nothing
		}},
	{name: "idle keep-alive, after many requests", requests: rarely, active: quiet, open: yes, on: every,
		set: func(t *testing.T, a *app, _ func()) func() {
			a.idle(t, 10)
			return nothing
		}},
	{name: "slow request, long poll", requests: yes, active: yes, open: yes, on: every,
		set: func(t *testing.T, a *app, _ func()) func() {
			return a.slow(t, a.settle(t))
		}},
	{name: "the next slow request, in the same clock tick as the last answer", requests: mostly, active: mostly, open: yes, on: every,
		set: func(t *testing.T, a *app, _ func()) func() {
			return a.slow(t, a.idle(t, 3))
		}},
	{name: "slow upload", requests: yes, active: yes, open: yes, on: every,
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.settle(t)
			c.say(t, "POST /upload HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nContent-Length: 200000\r\n\r\n")
			c.say(t, string(make([]byte, 100_000)))
			return func() {
				c.say(t, string(make([]byte, 100_000)))
				c.answer(t, http.StatusOK)
			}
		}},
	{name: "slow download", requests: yes, active: yes, open: yes, on: every,
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.connect(t)
			c.get(t, "/download")
			if _, err := c.read.Peek(1000); err != nil {
				t.Fatal(err)
			}
			return func() { c.answer(t, http.StatusOK) }
		}},
	{name: "answer in pieces, server-sent events", requests: quiet, active: quiet, open: yes, on: every,
		set: func(t *testing.T, a *app, look func()) func() {
			c := a.connect(t)
			one, two := a.gate(), a.gate()
			c.get(t, "/stream?id="+one.id+"&id="+two.id)
			one.reached(t)
			a.answers(t)
			look() // until now, this may have been the whole answer
			one.release()
			two.reached(t)
			return func() {
				two.release()
				c.answer(t, http.StatusOK)
			}
		}},
	{name: "body held back until `100 Continue`", requests: mostly, active: mostly, open: yes, on: []string{"go", "tomcat", "nginx"},
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.connect(t)
			c.say(t, "POST /upload HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			c.answer(t, http.StatusContinue)
			return func() {
				c.say(t, "12345")
				c.answer(t, http.StatusOK)
			}
		}},
	{name: "pipelining: two requests, one answered", requests: quiet, active: quiet, open: yes, on: []string{"go", "tomcat", "jdk", "python", "nginx"},
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.connect(t)
			one, two := a.gate(), a.gate()
			c.say(t, "GET /hold?id="+one.id+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\n\r\n"+"GET /hold?id="+two.id+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\n\r\n")
			one.reached(t)
			one.release()
			c.answer(t, http.StatusOK)
			two.reached(t)
			return func() {
				two.release()
				c.answer(t, http.StatusOK)
			}
		}},
	{name: "WebSocket, idle or answered", requests: quiet, active: quiet, open: yes, first: rarely, otherFirst: quiet, on: websockets,
		set: func(t *testing.T, a *app, look func()) func() {
			c := a.websocket(t)
			look()
			const text = "a message that is answered by itself"
			c.frame(t, wsText, text)
			c.gets(t, wsText, text)
			return nothing
		}},
	{name: "WebSocket: a message that the app does not answer", requests: mostly, active: mostly, open: yes, on: websockets,
		set: func(t *testing.T, a *app, look func()) func() {
			c := a.websocket(t)
			look()
			c.frame(t, wsText, "no answer is wanted for this one")
			return func() { c.Close() }
		}},
	{name: "WebSocket: the client's pings", requests: rarely, active: quiet, open: yes, on: websockets,
		set: func(t *testing.T, a *app, look func()) func() {
			c := a.websocket(t)
			for range 3 {
				look()
				c.frame(t, wsPing, "")
				c.gets(t, wsPong, "")
			}
			return nothing
		}},
	{name: "WebSocket: the app's pings", requests: rarely, active: mostly, open: yes, first: mostly, otherFirst: mostly, on: []string{"go", "nginx"},
		set: func(t *testing.T, a *app, look func()) func() {
			one, two := a.gate(), a.gate()
			c := a.upgrade(t, "/pings?id="+one.id+"&id="+two.id)
			for _, g := range []*gate{one, two} {
				g.reached(t)
				look()
				g.release()
				c.gets(t, wsPing, "")
				look()
				c.frame(t, wsPong, "")
			}
			return nothing
		}},
	{name: "HTTP/2, gRPC: a slow request", requests: mostly, active: mostly, open: yes, on: withHTTP2,
		set: func(t *testing.T, a *app, _ func()) func() {
			return a.speakHTTP2(t, 0).slow(t, a)
		}},
	{name: "HTTP/2, gRPC: several requests, some answered", requests: mostly, active: mostly, open: yes, on: withHTTP2,
		set: func(t *testing.T, a *app, look func()) func() {
			h := a.speakHTTP2(t, 0)
			end := h.slow(t, a)
			for range 3 {
				look()
				<-h.get(t, "/")
			}
			return end
		}},
	{name: "HTTP/2, gRPC: idle, and the client's pings", requests: mostly, active: mostly, open: yes, on: []string{"go", "go, TLS", "nginx"}, // Tomcat closes a connection that sends so many pings
		set: func(t *testing.T, a *app, look func()) func() {
			h := a.speakHTTP2(t, 10*time.Millisecond)
			const ping = 17
			before := a.heard(t)
			wait.Until(t, "some pings", func() bool {
				look()
				return a.heard(t) >= before+3*ping
			})
			return h.hangUp
		}},
	{name: "gRPC: a stream that is open, its messages answered", requests: mostly, active: mostly, open: yes, on: []string{"go", "go, TLS"},
		set: func(t *testing.T, a *app, look func()) func() {
			h := a.speakHTTP2(t, 0)
			read, write := io.Pipe()
			resp := h.send(t, http.MethodPost, "/echo", read)
			for range 3 {
				look()
				io.WriteString(write, "a message")
				if _, err := io.ReadFull(resp.Body, make([]byte, len("a message"))); err != nil {
					t.Fatal(err)
				}
			}
			return func() {
				write.Close()
				io.Copy(io.Discard, resp.Body)
				h.hangUp()
			}
		}},
	{name: "request of a client that has closed its half", requests: yes, active: yes, open: yes, on: []string{"go", "python"},
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.connect(t)
			g := a.hold(t, c)
			c.Conn.(*net.TCPConn).CloseWrite()
			return func() {
				g.release()
				c.answer(t, http.StatusOK)
			}
		}},
	{name: "idle, and the client has closed its half", requests: quiet, active: quiet, open: yes, on: byHand,
		set: func(t *testing.T, a *app, _ func()) func() {
			near, _ := a.exchange(t)
			near.Conn.(*net.TCPConn).CloseWrite()
			a.ended(t)
			return nothing
		}},
	{name: "client has gone away, app still at work", requests: yes, active: yes, open: yes, on: []string{"go", "jdk", "python"},
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.connect(t)
			g := a.hold(t, c)
			c.Close()
			a.ended(t)
			return g.release
		}},
	{name: "TLS: only the handshake was made", requests: mostly, active: mostly, open: yes, on: []string{"go, TLS"},
		set: func(t *testing.T, a *app, _ func()) func() {
			c := a.connect(t)
			if err := c.Conn.(*tls.Conn).Handshake(); err != nil {
				t.Fatal(err)
			}
			return func() {
				c.get(t, "/")
				c.answer(t, http.StatusOK)
			}
		}},
	{name: "TLS: a slow request in the same clock tick as the handshake", requests: mostly, active: mostly, open: yes, on: []string{"go, TLS"},
		set: func(t *testing.T, a *app, _ func()) func() {
			return a.slow(t, a.connect(t))
		}},
	{name: "TLS: idle, and the client says goodbye (close_notify)", requests: quiet, active: quiet, open: yes, first: mostly, otherFirst: mostly, on: byHand,
		set: func(t *testing.T, a *app, look func()) func() {
			near, far := a.exchange(t)
			a.answers(t)
			look()
			echo(t, near, far, string(make([]byte, 24))) // as long as an alert in TLS 1.3
			near.Conn.(*net.TCPConn).CloseWrite()
			a.ended(t)
			return func() { far.Close() }
		}},
	{name: "accepted by the kernel, not by the app, with a request", requests: yes, active: yes, open: yes, on: byHand,
		set: func(t *testing.T, a *app, _ func()) func() {
			near := a.connect(t)
			near.say(t, request1)
			return func() {
				far := a.accept(t)
				io.ReadFull(far.read, make([]byte, len(request1)))
				echo(t, far, near, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}},
	{name: "app has closed, client still takes the answer", requests: yes, active: yes, open: yes, on: byHand,
		set: func(t *testing.T, a *app, _ func()) func() {
			near, far := a.exchange(t)
			go func() {
				far.Write(make([]byte, 16<<20)) // more than fits into the kernel's queues
				far.Close()
			}()
			if _, err := near.read.Peek(1000); err != nil {
				t.Fatal(err)
			}
			return func() { io.Copy(io.Discard, near.read) }
		}},
	{name: "app has closed, client has everything", requests: no, active: no, open: no, on: byHand,
		set: func(t *testing.T, a *app, _ func()) func() {
			_, far := a.exchange(t)
			far.Close()
			return nothing
		}},
	// TestOwnConnectionsAreNoWork
	{name: "the sidecar's own probes and polls of the app", requests: no, active: no, open: no},
}

func nothing() {}

func TestRows(t *testing.T) {
	start := map[string]func(testing.TB) *app{
		"go, TLS": startGoTLS,
		"grpc":    startGRPC,
		"by hand": func(t testing.TB) *app { return listenOn(t, "127.0.0.1:0").app },
	}
	for name, s := range serverApps {
		start[name] = s
	}
	for name, start := range start {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			for _, r := range slices.Concat(rows, grpcRows) {
				if slices.Contains(r.on, name) {
					t.Run(r.name, func(t *testing.T) { r.test(t, a) })
					wait.Until(t, "the end of all connections", func() bool {
						r, err := newCounter(t, Config{Count: Open}, a.ports()...).Count(t.Context())
						return err == nil && r.InFlight == 0
					})
				}
			}
		})
	}
}

// eyes are two counters: for certain a doubt never counts, and for cautious it
// always counts.
type eyes struct{ certain, cautious *Counter }

func newEyes(t *testing.T, mode string, a *app) eyes {
	t.Helper()
	return eyes{
		certain:  a.counter(t, Config{Count: mode, Silence: Silence{}}),
		cautious: a.counter(t, Config{Count: mode, Silence: Silence{Duration: never}}),
	}
}

func (e eyes) look(t *testing.T) {
	t.Helper()
	for _, c := range []*Counter{e.certain, e.cautious} {
		if _, err := c.Count(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// see waits until the counters agree with v, and checks that they stay so.
func (e eyes) see(t *testing.T, v verdict) {
	t.Helper()
	want := map[verdict][2]int64{no: {0, 0}, rarely: {0, -1}, quiet: {0, 1}, mostly: {-1, 1}, yes: {1, 1}}[v]
	for i, c := range []*Counter{e.certain, e.cautious} {
		if want[i] < 0 {
			continue
		}
		becomes(t, c, want[i], readable)
		for range 3 {
			wantCount(t, c, want[i])
		}
	}
}

func (r *row) test(t *testing.T, a *app) {
	modes := map[string]verdict{Requests: r.requests, Active: r.active, Open: r.open}
	watching := make(map[string]eyes)
	for mode := range modes {
		watching[mode] = newEyes(t, mode, a)
	}
	look := func() {
		t.Helper()
		for _, e := range watching {
			e.look(t)
		}
	}
	look()
	end := r.set(t, a, look)
	for mode, v := range modes {
		t.Run(mode, func(t *testing.T) {
			watching[mode].see(t, v)
			if first := map[string]verdict{Requests: r.first, Active: r.otherFirst}[mode]; first != "" {
				v = first
			}
			newEyes(t, mode, a).see(t, v)
		})
	}
	end()
	becomes(t, watching[Requests].certain, 0, readable)
}

// ports returns the ports on which the app can be reached.
func (a *app) ports() []int {
	if a.http2 != 0 && a.http2 != a.port {
		return []int{a.port, a.http2}
	}
	return []int{a.port}
}

// settle returns a new connection. With TLS, its handshake was made some clock
// ticks ago.
func (a *app) settle(t *testing.T) *client {
	t.Helper()
	c := a.connect(t)
	if a.tls == nil {
		return c
	}
	if err := c.Conn.(*tls.Conn).Handshake(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the next clock tick", func() bool {
		later := false
		err := new(diagnostics).dump(t.Context(), a.ports(), connected, func(s *socket) error {
			later = min(s.recvAge, s.sentAge) > frameSoon+uint32(tick/time.Millisecond)
			return nil
		})
		return err == nil && later
	})
	return c
}

// idle returns a connection after some requests.
func (a *app) idle(t *testing.T, requests int) *client {
	t.Helper()
	c := a.connect(t)
	for range requests {
		c.get(t, "/")
		c.answer(t, http.StatusOK)
	}
	return c
}

// slow begins a request on c, and returns a function that lets it be answered.
func (a *app) slow(t *testing.T, c *client) (end func()) {
	t.Helper()
	g := a.hold(t, c)
	return func() {
		g.release()
		c.answer(t, http.StatusOK)
	}
}

// answers waits until the app has sent something after everything that it
// received on its only connection, and until the client has received it.
func (a *app) answers(t *testing.T) {
	t.Helper()
	becomes(t, a.counter(t, Config{}), 0, readable)
}

// heard returns how many bytes the app has received on its connections.
func (a *app) heard(t *testing.T) uint64 {
	t.Helper()
	var n uint64
	if err := new(diagnostics).dump(t.Context(), a.ports(), connected, func(s *socket) error {
		n += s.received()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// ended waits until the kernel has received the client's end of a connection.
func (a *app) ended(t *testing.T) {
	t.Helper()
	wait.Until(t, "the client's end", func() bool {
		ended := false
		err := new(diagnostics).dump(t.Context(), a.ports(), connected, func(s *socket) error {
			ended = ended || s.peerClosed()
			return nil
		})
		return err == nil && ended
	})
}

// accept accepts a connection if the test is the app.
func (a *app) accept(t *testing.T) *client { return (&listener{a.hand, a}).accept(t) }

// exchange makes a request and answers it, if the test is the app.
func (a *app) exchange(t *testing.T) (near, far *client) {
	t.Helper()
	near = a.connect(t)
	far = a.accept(t)
	echo(t, near, far, request1)
	echo(t, far, near, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	return near, far
}

// The opcodes of WebSocket frames.
const (
	wsText = 1
	wsPing = 9
	wsPong = 10
)

func (a *app) websocket(t *testing.T) *client { return a.upgrade(t, "/websocket") }

func (a *app) upgrade(t *testing.T, path string) *client {
	t.Helper()
	c := a.connect(t)
	key := base64.StdEncoding.EncodeToString(make([]byte, 16))
	c.say(t, "GET "+path+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nOrigin: http://test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n\r\n")
	c.answer(t, http.StatusSwitchingProtocols)
	return c
}

// frame sends a masked frame, as clients must.
func (c *client) frame(t *testing.T, kind byte, text string) {
	t.Helper()
	c.say(t, string([]byte{0x80 | kind, 0x80 | byte(len(text)), 0, 0, 0, 0})+text)
}

// gets reads a frame and checks that it is the expected one.
func (c *client) gets(t *testing.T, kind byte, text string) {
	t.Helper()
	want := string([]byte{0x80 | kind, byte(len(text))}) + text
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.read, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// clientOfHTTP2 is a client with one HTTP/2 connection.
type clientOfHTTP2 struct {
	*http.Client
	url  string
	conn net.Conn
}

// hangUp closes the connection. The client itself would leave it open if it
// still considers a stream unfinished whose answer has just been read.
func (h *clientOfHTTP2) hangUp() { h.conn.Close() }

// slow begins a request. It returns a function that lets it be answered and
// hangs up.
func (h *clientOfHTTP2) slow(t *testing.T, a *app) (end func()) {
	t.Helper()
	g := a.gate()
	done := h.get(t, "/hold?id="+g.id)
	g.reached(t)
	return func() {
		g.release()
		<-done
		h.hangUp()
	}
}

// speakHTTP2 makes the connection. The client pings when it has received
// nothing for the time ping; never if ping is 0.
func (a *app) speakHTTP2(t *testing.T, ping time.Duration) *clientOfHTTP2 {
	t.Helper()
	transport := &http.Transport{
		Protocols:       new(http.Protocols),
		TLSClientConfig: a.tls.Clone(),
		HTTP2:           &http.HTTP2Config{SendPingTimeout: ping},
	}
	scheme := "http"
	if a.tls != nil {
		transport.Protocols.SetHTTP2(true)
		scheme = "https"
	} else {
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	h := &clientOfHTTP2{Client: &http.Client{Transport: transport}, url: fmt.Sprintf("%s://127.0.0.1:%d", scheme, a.http2)}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			h.conn = conn
			t.Cleanup(func() { conn.Close() })
		}
		return conn, err
	}
	<-h.get(t, "/")
	return h
}

// send sends a request, and returns the beginning of its answer.
func (h *clientOfHTTP2) send(t *testing.T, method, path string, body io.Reader) *http.Response {
	ctx, cancel := context.WithTimeout(context.Background(), 2*wait.Patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, h.url+path, body)
	if err != nil {
		t.Error(err)
		return nil
	}
	resp, err := h.Do(r)
	if err != nil {
		t.Error(err)
		return nil
	}
	if resp.ProtoMajor != 2 {
		t.Errorf("answered by %s", resp.Proto)
	}
	return resp
}

// get begins a request. The returned channel is closed when it was answered.
func (h *clientOfHTTP2) get(t *testing.T, path string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp := h.send(t, http.MethodGet, path, nil); resp != nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	return done
}

// The table in docs/tcp.md has these rows, and no others.
func TestDocs(t *testing.T) {
	f, err := os.Open("../../docs/tcp.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	inTable := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cells := strings.Split(lines.Text(), " | ")
		switch {
		case strings.HasPrefix(lines.Text(), "| connection |"):
			inTable = true
		case !strings.HasPrefix(lines.Text(), "| "):
			inTable = false
		case inTable && len(cells) == 5 && !strings.HasPrefix(cells[0], "| ---"):
			got = append(got, strings.Join(cells[:4], " | "))
		}
	}
	var want []string
	for _, r := range rows {
		want = append(want, "| "+strings.Join([]string{r.name, string(r.requests), string(r.active), string(r.open)}, " | "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table in docs/tcp.md has:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
