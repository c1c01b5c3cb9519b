package counting

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// maxDelay is more than any request takes.
const maxDelay = time.Minute

// downloadSize is more than the buffers between two hosts hold.
const downloadSize = 32 << 20

// answers is the app in Go: its answers take as long as they are asked to.
func answers() http.Handler {
	mux := http.NewServeMux()
	// Each answer's body is, or ends with, "done".
	handle := func(path string, f func(w http.ResponseWriter, r *http.Request, d time.Duration)) {
		mux.HandleFunc(path+"/{ms}", func(w http.ResponseWriter, r *http.Request) {
			ms, err := strconv.Atoi(r.PathValue("ms"))
			d := time.Duration(ms) * time.Millisecond
			if err != nil || d < 0 || d > maxDelay {
				http.Error(w, "how many milliseconds?", http.StatusBadRequest)
				return
			}
			f(w, r, d)
			_, _ = io.WriteString(w, "done") // a client that has left is no fault
		})
	}
	// wait goes on also when the client has closed its half of the connection.
	wait := func(d time.Duration) { _ = sleep(context.Background(), d) }
	say := func(w http.ResponseWriter, text string) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
	}
	// often says text every so often, for as long as d.
	often := func(w http.ResponseWriter, text string, every, d time.Duration) {
		for ; d > every; d -= every {
			wait(every)
			say(w, text)
		}
		wait(d)
	}
	handle("/delay", func(_ http.ResponseWriter, _ *http.Request, d time.Duration) { wait(d) })
	handle("/upload", func(_ http.ResponseWriter, r *http.Request, d time.Duration) {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, downloadSize))
		wait(d)
	})
	handle("/hints", func(w http.ResponseWriter, _ *http.Request, d time.Duration) {
		w.Header().Set("Link", "</style.css>; rel=preload; as=style")
		w.WriteHeader(http.StatusEarlyHints)
		wait(d)
	})
	handle("/processing", func(w http.ResponseWriter, _ *http.Request, d time.Duration) {
		for ; d > 3*time.Second; d -= 3 * time.Second {
			wait(3 * time.Second)
			w.WriteHeader(http.StatusProcessing)
		}
		wait(d)
	})
	handle("/flush", func(w http.ResponseWriter, _ *http.Request, d time.Duration) {
		_ = http.NewResponseController(w).Flush()
		wait(d)
	})
	handle("/halves", func(w http.ResponseWriter, _ *http.Request, d time.Duration) {
		say(w, strings.Repeat("first half\n", 1000))
		wait(d)
	})
	handle("/pieces", func(w http.ResponseWriter, _ *http.Request, d time.Duration) { often(w, "piece\n", d/4, d) })
	handle("/events", func(w http.ResponseWriter, _ *http.Request, d time.Duration) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		often(w, ": ping\n\n", 6*time.Second, d)
	})
	handle("/spaces", func(w http.ResponseWriter, _ *http.Request, d time.Duration) { often(w, " ", time.Second, d) })
	handle("/close", func(w http.ResponseWriter, _ *http.Request, d time.Duration) {
		w.Header().Set("Connection", "close")
		wait(d)
	})
	handle("/download", func(w http.ResponseWriter, _ *http.Request, _ time.Duration) {
		_, _ = w.Write(make([]byte, downloadSize))
	})
	mux.Handle("/ws", socketServer(0))
	mux.Handle("/pinging-ws", socketServer(5*time.Second))
	return mux
}

// socketServer answers messages. It pings every so often, unless that is 0.
func socketServer(ping time.Duration) http.Handler {
	return websocket.Server{Handler: func(ws *websocket.Conn) {
		ctx, cancel := context.WithCancel(ws.Request().Context())
		defer cancel()
		if ping > 0 {
			go func() {
				frame := websocket.Codec{Marshal: func(any) ([]byte, byte, error) { return nil, websocket.PingFrame, nil }}
				for sleep(ctx, ping) == nil {
					if frame.Send(ws, nil) != nil {
						return
					}
				}
			}()
		}
		for {
			var message string
			if websocket.Message.Receive(ws, &message) != nil {
				return
			}
			ms, err := strconv.Atoi(message)
			if err != nil || sleep(ctx, min(time.Duration(ms)*time.Millisecond, maxDelay)) != nil {
				return
			}
			if websocket.Message.Send(ws, "done") != nil {
				return
			}
		}
	}}
}

// listen listens on a port of all addresses; any port where it is 0. With a
// configuration it speaks TLS.
func listen(t testing.TB, port int, config *tls.Config) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)) //nolint:noctx // clients come from another namespace too
	if err != nil {
		t.Fatal(err)
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("it listens on %v", l.Addr())
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, address.Port
}

// serveHTTP serves the app in Go until the test ends.
func serveHTTP(t testing.TB, l net.Listener, http2 bool) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	server := &http.Server{
		Handler: answers(), Protocols: protocols, ReadHeaderTimeout: 2 * time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // clients that go away in the handshake
	}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
}

// serveConnections has each connection served until the test ends.
func serveConnections(t testing.TB, l net.Listener, serve func(ctx context.Context, conn net.Conn)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = l.Close() // all is over
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				serve(ctx, conn)
				_ = conn.Close() // it has been served
			}()
		}
	}()
}

// serveLines answers "DELAY MS" with "+done" after so many milliseconds, and
// refuses all else as Redis does. It speaks first where there is a greeting.
func serveLines(greeting string) func(context.Context, net.Conn) {
	return func(ctx context.Context, conn net.Conn) {
		if _, err := io.WriteString(conn, greeting); err != nil {
			return
		}
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			var ms int
			if _, err := fmt.Sscanf(lines.Text(), "DELAY %d", &ms); err != nil {
				_, _ = io.WriteString(conn, "-ERR unknown command\r\n")
				return
			}
			if sleep(ctx, min(time.Duration(ms)*time.Millisecond, maxDelay)) != nil {
				return
			}
			if _, err := io.WriteString(conn, "+done\r\n"); err != nil {
				return
			}
		}
	}
}

// heartbeat is a protocol in which both sides say again and again that they are
// still there.
type heartbeat struct {
	asks, answers []string // the exchanges at the beginning
	client        string   // what the client says every beatEvery
	server        string   // what the server says as often, of itself
	echo          string   // what the server says to each of the client's
	message       string   // what a client publishes
	delivery      string   // and what comes of it: it is a subscriber too
}

// beatEvery is how often heartbeats come.
const beatEvery = 5 * time.Second

var errNoBeat = errors.New("something else than a heartbeat or a message came")

// end is one side of a connection with heartbeats.
type end struct {
	conn      net.Conn
	own       string       // what it says every beatEvery
	beat      string       // what the other side says as often
	echo      string       // what it says to that
	message   string       // what else the other side may say
	onMessage func() error // called for each
}

// run says what is to be said, and reads what the other side says, until the
// connection or ctx ends.
func (e *end) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if e.own != "" {
		go func() {
			for sleep(ctx, beatEvery) == nil {
				if _, err := io.WriteString(e.conn, e.own); err != nil {
					return
				}
			}
		}()
	}
	read := bufio.NewReader(e.conn)
	for {
		first, err := read.Peek(1)
		if err != nil {
			return err
		}
		isBeat := e.beat != "" && first[0] == e.beat[0]
		want := e.message
		if isBeat {
			want = e.beat
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(read, got); err != nil {
			return err
		}
		if want == "" || string(got) != want {
			return errNoBeat
		}
		if isBeat {
			_, err = io.WriteString(e.conn, e.echo)
		} else {
			err = e.onMessage()
		}
		if err != nil {
			return err
		}
	}
}

func (h *heartbeat) serve(ctx context.Context, conn net.Conn) {
	for i, ask := range h.asks {
		for want := range strings.SplitSeq(ask, "") {
			got := make([]byte, 1)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
				return // at once, as brokers do
			}
		}
		if _, err := io.WriteString(conn, h.answers[i]); err != nil {
			return
		}
	}
	server := end{conn: conn, own: h.server, beat: h.client, echo: h.echo, message: h.message, onMessage: func() error {
		_, err := io.WriteString(conn, h.delivery)
		return err
	}}
	_ = server.run(ctx) // until the client leaves
}

// open is the client's side: it returns when the beginning is over, what
// publishes a message and returns when that was delivered.
func (h *heartbeat) open(ctx context.Context, conn net.Conn) (publish func(context.Context) error, err error) {
	for i, ask := range h.asks {
		if _, err := io.WriteString(conn, ask); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, make([]byte, len(h.answers[i]))); err != nil {
			return nil, err
		}
	}
	delivered, closed := make(chan struct{}), make(chan struct{})
	client := end{conn: conn, own: h.client, beat: h.server + h.echo, message: h.delivery, onMessage: func() error {
		delivered <- struct{}{}
		return nil
	}}
	go func() {
		_ = client.run(ctx) // until it is closed
		close(closed)
	}()
	return func(ctx context.Context) error {
		if _, err := io.WriteString(conn, h.message); err != nil {
			return err
		}
		select {
		case <-delivered:
			return nil
		case <-closed:
			return fmt.Errorf("%w, or the connection has ended", errNoBeat)
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil
}
