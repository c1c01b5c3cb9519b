package countertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
)

// Proxy is a real proxy in front of a backend that holds back its answers, with
// its own client. It is the part of Harness that all proxies share.
type Proxy struct {
	Backend *servers.Backend
	Client  *http.Client
	Port    int // HTTP/1.1
	HTTP2   int // HTTP/2 without TLS
	Raw     int // plain TCP; 0: not supported
}

// Begin begins a request that the backend holds back.
func (p Proxy) Begin(t *testing.T) (end func()) {
	held := p.Hold(t)
	return func() { held.End(t) }
}

// Idle opens a connection that has received its answer, and one that sends
// nothing.
func (p Proxy) Idle(t *testing.T) bool {
	servers.IdleConnection(t, Address(p.Port))
	servers.Connect(t, Address(p.Port))
	return true
}

// Arrivals returns true: all proxies report arrivals.
func (p Proxy) Arrivals() bool { return true }

// Hold makes a request that the backend holds back.
func (p Proxy) Hold(t *testing.T) *servers.Held {
	t.Helper()
	return p.Backend.Hold(t, p.Client, Base(p.Port))
}

// Base returns the URL of a port on this machine.
func Base(port int) string { return "http://" + Address(port) }

// Address returns HOST:PORT for a port on this machine.
func Address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// EndsEven begins and ends work in all the ways that every proxy supports, and
// checks that the counter returns 0 after each. The returned function checks
// the same after another way.
func (p Proxy) EndsEven(t *testing.T, c drain.Counter) (even func(what string)) {
	t.Helper()
	even = func(what string) {
		t.Helper()
		for range 3 {
			Becomes(t, c, 0, Readable)
		}
		// A proxy on a busy machine may still count the previous reading.
		if got := Becomes(t, c, 0, Readable); got.Arrived != Becomes(t, c, 0, Readable).Arrived {
			t.Fatalf("%s: arrivals grow by reading alone", what)
		}
	}
	even("at first") // the statistics are there before the first request

	held := p.Hold(t)
	Becomes(t, c, 1, Readable)
	held.Abort()
	held.Release()
	even("aborted")

	conn := servers.Connect(t, Address(p.Port))
	if got := servers.Say(t, conn, "GARBAGE\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") && !strings.HasPrefix(got, "HTTP/1.0 400 ") {
		t.Fatalf("garbage is answered %q", got)
	}
	even("garbage")

	conn = servers.Connect(t, Address(p.Port))
	if _, err := conn.Write([]byte("POST /upload HTTP/1.1\r\nHost: test\r\n")); err != nil {
		t.Fatal(err)
	}
	Becomes(t, c, 1, Readable) // half a header
	if _, err := conn.Write([]byte("Content-Length: 4\r\n\r\nab")); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		Becomes(t, c, 1, NotZero) // half a body
	}
	if got := servers.Say(t, conn, "cd"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatalf("an upload is answered %q", got)
	}
	even("uploaded")

	conn = servers.WebSocket(t, Address(p.Port))
	Becomes(t, c, 1, Readable)
	hangUp(t, conn)
	even("WebSocket")

	client := servers.HTTP2Client(t)
	first := p.Backend.Hold(t, client, Base(p.HTTP2))
	second := p.Backend.Hold(t, client, Base(p.HTTP2))
	Becomes(t, c, 2, Readable)
	first.End(t)
	Becomes(t, c, 1, Readable)
	second.End(t)
	even("HTTP/2") // the connection is open and idle

	if p.Raw != 0 {
		conn = servers.Connect(t, Address(p.Raw))
		Becomes(t, c, 1, Readable) // plain TCP: the connection is the work
		hangUp(t, conn)
		even("TCP")
	}
	return even
}

func hangUp(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// Frozen freezes the proxy, and checks that each call ends at its deadline.
func Frozen(t *testing.T, freeze, thaw func(testing.TB), calls ...func(context.Context) error) {
	t.Helper()
	freeze(t)
	defer thaw(t)
	for _, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want an error that is context.DeadlineExceeded", err)
		}
		cancel()
	}
}

// ReadingOf returns a call for Frozen that takes one reading.
func ReadingOf(c drain.Counter) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.Count(ctx)
		return err
	}
}
