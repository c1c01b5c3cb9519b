package tcp

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"lastcall/internal/test/wait"
)

// soon is a silence for which a test can wait. never is a silence that lasts
// longer than any test.
const (
	soon  = 50 * time.Millisecond
	never = time.Hour
)

// settled returns a counter for which a doubt never counts: what it counts is
// certain. cautious returns one for which each doubt counts.
func (a *app) settled(t *testing.T) *Counter {
	return a.counter(t, Config{Silence: Silence{}})
}

// glimpse makes the counter check.
func (c *Counter) glimpse(t *testing.T) {
	t.Helper()
	if _, err := c.Count(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (a *app) cautious(t *testing.T) *Counter {
	return a.counter(t, Config{Silence: Silence{Duration: never}})
}

// all waits until all counters have the same result.
func all(t *testing.T, want int64, counters ...*Counter) {
	t.Helper()
	for _, c := range counters {
		becomes(t, c, want, readable)
	}
}

// cases are sequences of events on a connection. rows_test.go defines what
// counts in which state.
var cases = []struct {
	name string
	run  func(t *testing.T, a *app)
	only []string // the servers that can do it; empty: all
}{
	{name: "a keep-alive connection after many requests", run: func(t *testing.T, a *app) {
		watched := a.settled(t)
		proven := a.cautious(t)
		all(t, 0, watched, proven)
		c := a.connect(t)
		for range 20 {
			c.get(t, "/")
			c.answer(t, http.StatusOK)
			becomes(t, watched, 0, readable)
			proven.glimpse(t)
		}
		if a.speaks[a.port].http1 {
			becomes(t, proven, 0, readable)
		} else {
			becomes(t, proven, 1, readable) // another request may be under way
		}
		all(t, 0, a.counter(t, Config{Silence: Silence{Duration: soon}}))
	}},
	{name: "a slow request", run: func(t *testing.T, a *app) {
		watched := a.cautious(t)
		wantCount(t, watched, 0)
		c := a.connect(t)
		g := a.hold(t, c)
		all(t, 1, watched, a.settled(t))
		g.release()
		c.answer(t, http.StatusOK)
		becomes(t, a.settled(t), 0, readable)
		becomes(t, watched, 1, readable) // the answer may continue
		c.Close()
		becomes(t, watched, 0, readable)
	}},
	{name: "a slow request right after fast ones", run: func(t *testing.T, a *app) {
		for _, looks := range []bool{true, false} {
			watched := a.cautious(t)
			becomes(t, watched, 0, readable)
			c := a.connect(t)
			for range 5 {
				c.get(t, "/")
				c.answer(t, http.StatusOK)
				if looks {
					becomes(t, a.settled(t), 0, readable)
					watched.glimpse(t)
				}
			}
			g := a.hold(t, c) // often in the same tick as the last answer
			for range 5 {
				all(t, 1, watched, a.cautious(t))
			}
			g.release()
			c.answer(t, http.StatusOK)
			c.Close()
			becomes(t, watched, 0, readable)
		}
	}},
	{name: "slow requests one after another", run: func(t *testing.T, a *app) {
		watched := a.cautious(t)
		c := a.connect(t)
		g := a.hold(t, c)
		for range 5 {
			becomes(t, watched, 1, readable)
			g.release()
			c.answer(t, http.StatusOK)
			g = a.hold(t, c) // often in the same tick as the answer
			all(t, 1, watched, a.cautious(t))
		}
		g.release()
		c.answer(t, http.StatusOK)
		becomes(t, a.settled(t), 0, readable)
	}},
	{name: "a slow upload", run: func(t *testing.T, a *app) {
		watched := a.counter(t, Config{Silence: Silence{Duration: soon}})
		wantCount(t, watched, 0)
		c := a.connect(t)
		c.say(t, "POST /upload HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nContent-Length: 300000\r\n\r\n")
		for range 3 {
			all(t, 1, watched, a.settled(t))
			c.say(t, string(make([]byte, 100_000)))
		}
		c.answer(t, http.StatusOK)
		becomes(t, watched, 0, readable)
	}},
	{name: "a slow download", run: func(t *testing.T, a *app) {
		watched := a.counter(t, Config{Silence: Silence{Duration: soon}})
		wantCount(t, watched, 0)
		c := a.connect(t)
		c.get(t, "/download")
		if _, err := c.read.Peek(1000); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			all(t, 1, watched, a.settled(t))
		}
		c.answer(t, http.StatusOK)
		becomes(t, watched, 0, readable)
	}},
	{name: "an answer that comes in pieces", run: func(t *testing.T, a *app) {
		watched, patient := a.counter(t, Config{Silence: Silence{Duration: soon}}), a.cautious(t)
		all(t, 0, watched, patient)
		c := a.connect(t)
		one, two := a.gate(), a.gate()
		c.get(t, "/stream?id="+one.id+"&id="+two.id)
		one.reached(t)
		becomes(t, watched, 0, readable) // until now, this may have been the whole answer
		becomes(t, patient, 1, readable) // or it may not
		one.release()
		two.reached(t)
		becomes(t, patient, 1, readable)
		becomes(t, watched, 0, readable)
		becomes(t, patient, 1, readable)
		two.release()
		c.answer(t, http.StatusOK)
		becomes(t, watched, 0, readable)
	}},
	{name: "messages over a WebSocket", only: websockets, run: func(t *testing.T, a *app) {
		watched := a.counter(t, Config{Count: Active, Silence: Silence{Duration: soon}})
		wantCount(t, watched, 0)
		c := a.websocket(t)
		for range 3 {
			becomes(t, watched, 0, readable)
			before, err := watched.Count(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			const text = "a message that is longer than a ping"
			c.frame(t, wsText, text)
			c.gets(t, wsText, text)
			if after, err := watched.Count(t.Context()); err != nil || after.Arrived == before.Arrived {
				t.Fatalf("got %+v, %v: a message is an arrival", after, err)
			}
		}
	}},
	{name: "requests sent ahead of answers", run: func(t *testing.T, a *app) {
		watched := a.settled(t)
		wantCount(t, watched, 0)
		c := a.connect(t)
		one, two := a.gate(), a.gate()
		c.say(t, "GET /hold?id="+one.id+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\n\r\n"+"GET /hold?id="+two.id+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\n\r\n")
		one.reached(t)
		becomes(t, watched, 1, readable)
		one.release()
		c.answer(t, http.StatusOK)
		two.reached(t)
		becomes(t, watched, 0, readable) // the answer to the first looks like the answer to all
		becomes(t, a.cautious(t), 1, readable)
		becomes(t, a.counter(t, Config{Count: Active, Silence: Silence{Duration: never}}), 1, readable)
		two.release()
		c.answer(t, http.StatusOK)
		becomes(t, watched, 0, readable)
	}},
	{name: "a request of a client that closes its half", run: func(t *testing.T, a *app) {
		watched := a.settled(t)
		wantCount(t, watched, 0)
		c := a.connect(t)
		g := a.hold(t, c)
		c.Conn.(*net.TCPConn).CloseWrite()
		for range 5 {
			all(t, 1, watched, a.settled(t))
		}
		g.release()
		c.answer(t, http.StatusOK)
		all(t, 0, watched, a.settled(t))
	}, only: []string{"go", "python"}}, // the others abort the request
	{name: "a client that goes away", run: func(t *testing.T, a *app) {
		watched := a.settled(t)
		c := a.connect(t)
		g := a.hold(t, c)
		becomes(t, watched, 1, readable)
		c.Close()
		g.release()
		becomes(t, watched, 0, readable)
	}},
	{name: "a body that waits for 100 Continue", only: []string{"go", "nginx"}, run: func(t *testing.T, a *app) {
		watched, hasty := a.cautious(t), a.counter(t, Config{Silence: Silence{Duration: soon}})
		all(t, 0, watched, hasty)
		c := a.connect(t)
		c.say(t, "POST /upload HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		c.answer(t, http.StatusContinue)
		for range 5 {
			becomes(t, watched, 1, readable)
		}
		c.say(t, "12345")
		c.answer(t, http.StatusOK)
		becomes(t, hasty, 0, readable)
	}},
	{name: "HTTP/2 with several streams", only: []string{"go", "nginx"}, run: func(t *testing.T, a *app) {
		watched := a.counter(t, Config{Count: Active, Silence: Silence{Duration: never}})
		wantCount(t, watched, 0)
		h := a.speakHTTP2(t, 0)
		g := a.gate()
		slow := h.get(t, "/hold?id="+g.id)
		g.reached(t)
		becomes(t, watched, 1, readable)
		for range 3 {
			<-h.get(t, "/") // another stream, which is answered last
			becomes(t, watched, 1, readable)
		}
		g.release()
		<-slow
		becomes(t, a.counter(t, Config{Count: Active, Silence: Silence{Duration: soon}}), 0, readable)
		h.hangUp()
		becomes(t, watched, 0, readable)
	}},
}

func TestCases(t *testing.T) {
	for name, start := range serverApps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			for _, test := range cases {
				if len(test.only) > 0 && !slices.Contains(test.only, name) {
					continue
				}
				t.Run(test.name, func(t *testing.T) {
					test.run(t, a)
				})
				becomes(t, a.counter(t, Config{Count: Open}), 0, readable) // everything is closed
			}
		})
	}
}

// listener is an app that does only what the test does.
type listener struct {
	net.Listener
	*app
}

func listenOn(t testing.TB, address string) *listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &listener{l, &app{port: l.Addr().(*net.TCPAddr).Port, hand: l}}
}

func (l *listener) accept(t *testing.T) *client {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{conn, bufio.NewReader(conn)}
}

// echo sends text from one end to the other, which reads it.
func echo(t *testing.T, from, to *client, text string) {
	t.Helper()
	from.say(t, text)
	if _, err := io.ReadFull(to.read, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
}

const request1 = "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\n\r\n"

func TestIdleConnectionWhoseClientClosesItsHalf(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	watched := l.settled(t)
	near := l.connect(t)
	far := l.accept(t)
	echo(t, near, far, request1)
	becomes(t, watched, 1, readable)
	echo(t, far, near, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	becomes(t, watched, 0, readable)
	before, _ := watched.Count(t.Context())
	near.Conn.(*net.TCPConn).CloseWrite()
	wait.Until(t, "the end to arrive", func() bool {
		ended := false
		new(diagnostics).dump(t.Context(), []int{l.port}, connected, func(s *socket) error {
			ended = ended || s.peerClosed() && s.unread == 1
			return nil
		})
		return ended
	})
	all(t, 0, watched, l.settled(t))
	if after, err := watched.Count(t.Context()); err != nil || after.Arrived != before.Arrived || after.InFlight != 0 {
		t.Fatalf("got %+v, %v, want %+v: the end is nothing that arrives", after, err, before)
	}
}

func TestAddresses(t *testing.T) {
	for name, test := range map[string]struct{ listen, dial string }{
		"IPv4":             {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":             {"[::1]:0", "::1"},
		"both, over IPv4":  {":0", "127.0.0.1"},
		"both, over IPv6":  {":0", "::1"},
		"another loopback": {"0.0.0.0:0", "127.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listenOn(t, test.listen)
			other := listenOn(t, test.listen)
			c := newCounter(t, Config{}, 1, l.port, 2)
			for _, port := range []int{l.port, other.port} {
				conn, err := net.Dial("tcp", net.JoinHostPort(test.dial, strconv.Itoa(port)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				io.WriteString(conn, request1)
			}
			becomes(t, c, 1, readable)
			becomes(t, newCounter(t, Config{}, other.port, l.port), 2, readable)
			if listening, err := NewApp(1, l.port).Listening(t.Context()); err != nil || !listening {
				t.Errorf("listening is %v, %v", listening, err)
			}
			l.Close()
			if listening, err := NewApp(1, l.port).Listening(t.Context()); err != nil || listening {
				t.Errorf("after the end listening is %v, %v", listening, err)
			}
		})
	}
}
