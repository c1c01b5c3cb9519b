package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

// The rows of the table in docs/security.md that a single connection can show.

const (
	head     = " HTTP/1.1\r\nHost: pod\r\n"
	smuggled = "POST /drain" + head + "Content-Length: 0\r\n\r\n"
)

// serves checks that the server is as it was before the abuse.
func (e *edge) serves(network *network) {
	e.t.Helper()
	if s := e.status(); s.Phase != drain.Serving {
		e.t.Errorf("the abuse has begun a drain: %s", s.Phase)
	}
	w := network.dial()
	w.say(live)
	wantAnswer(e.t, w, http.StatusOK)
}

func TestMalformedRequests(t *testing.T) {
	for name, test := range map[string]struct {
		send string
		code string // of the answer; empty: none comes
	}{
		"TLS":                        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 509), "400"},
		"HTTP/2 preface":             {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "405"},
		"HTTP/2 by upgrade":          {"GET /livez" + head + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "200"},
		"garbage":                    {strings.Repeat("\xff\x00\r\n", 2000), "400"},
		"zeros":                      {strings.Repeat("\x00", 20_000), "431"},
		"no line ends":               {strings.Repeat("G", 20_000), "431"},
		"a path of 20 kB":            {"GET /" + strings.Repeat("p", 20_000) + head + "\r\n", "431"},
		"a path of 7 kB":             {"GET /" + strings.Repeat("p", 7_000) + head + "\r\n", "404"},
		"a query of 7 kB":            {"GET /livez?" + strings.Repeat("q", 7_000) + head + "\r\n", "200"},
		"a header of 12 kB":          {"GET /prestop" + head + "X-A: " + strings.Repeat("a", 12_000) + "\r\n\r\n", "431"},
		"10,000 headers":             {"POST /drain" + head + strings.Repeat("a: b\r\n", 10_000) + "\r\n", "431"},
		"HTTP/0.9":                   {"GET /prestop\r\n\r\n", "400"},
		"HTTP/3.0":                   {"GET /livez HTTP/3.0\r\nHost: pod\r\n\r\n", "505"},
		"no host":                    {"GET /livez HTTP/1.1\r\n\r\n", "400"},
		"two hosts":                  {"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		"a space before the colon":   {"POST /drain" + head + "Content-Length : 0\r\n\r\n", "400"},
		"a zero in a header":         {"POST /drain" + head + "X-A: a\x00b\r\n\r\n", "400"},
		"a line feed in a method":    {"PO\nST /drain" + head + "\r\n", "400"},
		"a proxy's request":          {"CONNECT other:80 HTTP/1.1\r\nHost: other\r\n\r\n", "404"},
		"the address of somebody":    {"GET http://169.254.169.254/latest HTTP/1.1\r\nHost: pod\r\n\r\n", "404"},
		"a path that climbs":         {"GET /livez/../prestop" + head + "\r\n", "404"},
		"a path that is encoded":     {"GET /%70restop%00" + head + "\r\n", "404"},
		"an answer, not a request":   {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "400"},
		"a method with line endings": {"GET\r\n\r\n", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEdge(t)
				network := e.serve(Options{})
				w := network.dial()
				w.say(test.send)
				after(time.Minute)
				if got := w.received(); !strings.HasPrefix(got, "HTTP/1.1 "+test.code+" ") {
					t.Errorf("was answered %q, want %s", got, test.code)
				}
				if !w.closed() {
					t.Error("the connection is open after a minute")
				}
				e.serves(network)
			})
		})
	}
}

// Data that a proxy in front may take for a body is never taken for a request.
func TestSmuggling(t *testing.T) {
	length := fmt.Sprint(len("0\r\n\r\n" + smuggled))
	for name, send := range map[string]string{
		"a length and chunks":             "GET /livez" + head + "Content-Length: " + length + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks and a length":             "GET /livez" + head + "Transfer-Encoding: chunked\r\nContent-Length: " + length + "\r\n\r\n0\r\n\r\n" + smuggled,
		"two lengths":                     "GET /livez" + head + "Content-Length: 0\r\nContent-Length: " + length + "\r\n\r\n" + smuggled,
		"a list of lengths":               "GET /livez" + head + "Content-Length: 0, " + length + "\r\n\r\n" + smuggled,
		"a length with a sign":            "GET /livez" + head + "Content-Length: +0\r\n\r\n" + smuggled,
		"a negative length":               "GET /livez" + head + "Content-Length: -1\r\n\r\n" + smuggled,
		"a hexadecimal length":            "GET /livez" + head + "Content-Length: 0x0\r\n\r\n" + smuggled,
		"a length that overflows":         "GET /livez" + head + "Content-Length: 18446744073709551616\r\n\r\n" + smuggled,
		"two encodings":                   "GET /livez" + head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
		"an unknown encoding":             "GET /livez" + head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"an encoding with a vertical tab": "GET /livez" + head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"an encoding on a second line":    "GET /livez" + head + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"a chunk's length that overflows": "GET /livez" + head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n" + smuggled,
		"a chunk's extension":             "GET /livez" + head + "Transfer-Encoding: chunked\r\n\r\n0;a=\n\r\n\r\n" + smuggled,
		"a trailer":                       "GET /livez" + head + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 0\r\n\r\n" + smuggled,
		"HTTP/1.0 with chunks":            "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"a body that is a request":        fmt.Sprintf("GET /livez"+head+"Content-Length: %d\r\n\r\n", len(smuggled)) + smuggled,
		"an expectation":                  "GET /livez" + head + "Content-Length: 1\r\nExpect: 100-continue\r\n\r\nx" + smuggled,
		"bare line feeds":                 "GET /livez HTTP/1.1\nHost: pod\nContent-Length: 1\n\nx" + smuggled,
		"a lonely carriage return":        "GET /livez" + head + "X: a\rContent-Length: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEdge(t)
				network := e.serve(Options{})
				w := network.dial()
				w.say(send)
				after(time.Minute)
				if n := strings.Count(w.received(), "HTTP/1.1 ") + strings.Count(w.received(), "HTTP/1.0 ") - strings.Count(w.received(), "100 Continue"); n > 1 {
					t.Errorf("%d answers: %q", n, w.received())
				}
				if !w.closed() {
					t.Error("the connection is open after a minute")
				}
				e.serves(network)
			})
		})
	}
}

func TestSlowBodyIsCutOff(t *testing.T) {
	for name, test := range map[string]struct{ send, drip string }{
		"a body that does not come":      {"POST /drain" + head + "Content-Length: 4000\r\n\r\n", ""},
		"a body that comes slowly":       {"POST /drain" + head + "Content-Length: 4000\r\n\r\n", "x"},
		"chunks that come slowly":        {"POST /drain" + head + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"},
		"a body of a call that has none": {"GET /livez" + head + "Content-Length: 4000\r\n\r\n", "x"},
		"an expectation":                 {"POST /drain" + head + "Content-Length: 4000\r\nExpect: 100-continue\r\n\r\n", ""},
		"a body for the server itself":   {"OPTIONS *" + head + "Content-Length: 4000\r\n\r\n", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEdge(t)
				network := e.serve(Options{})
				w := network.dial()
				w.say(test.send)
				for range 4 * bodyLimit / time.Second {
					after(time.Second)
					w.say(test.drip)
				}
				if got := w.received(); !w.closed() || !strings.Contains(got, "HTTP/1.1 400 ") {
					t.Errorf("closed: %v, after %q", w.closed(), got)
				}
				e.serves(network)
			})
		})
	}
}

// Only the first request of a pipeline is answered.
func TestPipelineIsAnsweredOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		network := e.serve(Options{})
		w := network.dial()
		w.say("GET /livez" + head + "\r\n" + strings.Repeat("POST /drain"+head+"\r\n", 500))
		after(time.Second)
		if got := w.received(); strings.Count(got, "HTTP/1.1 ") != 1 || !w.closed() {
			t.Errorf("closed: %v, after %q", w.closed(), got)
		}
		e.serves(network)
	})
}

// Nothing that follows a hook on its connection is answered: the connection is
// closed.
func TestPipelineBehindAHook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		network := e.serve(Options{})
		w := network.dial()
		w.say(hook + "DELETE /drain" + head + "\r\n")
		after(time.Minute)
		resp, _ := answerOf(t, w.received())
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("answers %d", resp.StatusCode)
		}
		if !w.closed() || e.status().Phase == drain.Serving {
			t.Errorf("closed: %v, and the phase is %s", w.closed(), e.status().Phase)
		}
	})
}

// evil is what an app's name, a registry's error or a caller's header may hold.
const evil = "a\r\nSet-Cookie: b\n{\"level\":\"ERROR\"}\x1b[31m\"\\\x00\u2028<script>\xff"

func TestNamesCannotInject(t *testing.T) {
	for format, handler := range map[string]func(io.Writer) slog.Handler{
		"json": func(w io.Writer) slog.Handler {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"text": func(w io.Writer) slog.Handler {
			return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
	} {
		t.Run(format, func(t *testing.T) {
			var log bytes.Buffer
			slog.SetDefault(slog.New(handler(&log)))
			defer slog.SetDefault(slog.New(slog.DiscardHandler))
			bubble(t, func(t *testing.T) {
				e := newEdge(t, withToken("secret"), func(c *drain.Config, o *Options) {
					c.Registries[0].Name, c.Counters[0].Name, o.Version = evil, evil, evil
				})
				e.registry.setBroken(errors.New(evil))
				e.counter.set(0, errors.New(evil))
				w := e.call(http.MethodGet, "/prestop", "User-Agent", evil, "Authorization", "Bearer "+evil)
				wants(t, w, http.StatusForbidden)
				e.d.Begin(drain.CauseCall)
				after(2 * time.Second)
				status := e.call(http.MethodGet, "/status")
				wants(t, status, http.StatusOK) // valid JSON
				for line := range strings.Lines(e.call(http.MethodGet, "/metrics").Body.String()) {
					if !strings.HasPrefix(line, "lastcall_") && !strings.HasPrefix(line, "# ") {
						t.Errorf("a line of /metrics: %q", line)
					}
				}
			})
			for line := range strings.Lines(log.String()) {
				if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\r\x00") {
					t.Errorf("the log holds control characters: %q", line)
				}
				if format == "json" && !json.Valid([]byte(line)) || format == "text" && !strings.HasPrefix(line, "time=") {
					t.Errorf("a line of the log: %q", line)
				}
			}
			if log.Len() == 0 {
				t.Error("nothing was logged")
			}
		})
	}
}
