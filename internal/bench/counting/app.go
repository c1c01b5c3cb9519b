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

// maxDelay is longer than any request.
const maxDelay = time.Minute

// downloadSize is more than the buffers between two hosts can hold.
const downloadSize = 32 << 20

// answers is the app in Go. Its answers take as long as the request says.
func answers() http.Handler {
	mux := http.NewServeMux()
	// The body of each answer is "done", or ends with it.
	handle := func(path string, f func(w http.ResponseWriter, r *http.Request, d time.Duration)) {
		mux.HandleFunc(path+"/{ms}", func(w http.ResponseWriter, r *http.Request) {
			ms, err := strconv.Atoi(r.PathValue("ms"))
			d := time.Duration(ms) * time.Millisecond
			if err != nil || d < 0 || d > maxDelay {
				http.Error(w, "how many milliseconds?", http.StatusBadRequest)
				return
			}
			f(w, r, d)
			_, _ = io.WriteString(w, "done") // an error means that the client is gone, which is no fault
		})
	}
	// wait continues even if the client has closed its half of the connection.
	wait := func(d time.Duration) { _ = sleep(context.Background(), d) }
	say := func(w http.ResponseWriter, text string) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
	}
	// often writes text at the interval every, for the time d.
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

// socketServer answers messages. It pings at the interval ping, or never if ping is
// 0.
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

// listen listens on a port of all addresses, or on any free port if port is 0. With
// config it uses TLS.
func listen(t testing.TB, port int, config *tls.Config) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)) //nolint:noctx // clients may be in another namespace
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
		ErrorLog: log.New(io.Discard, "", 0), // for clients that disconnect during the handshake
	}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
}

// serveConnections calls serve for each connection, until the test ends.
func serveConnections(t testing.TB, l net.Listener, serve func(ctx context.Context, conn net.Conn)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = l.Close() // the test is over
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
				_ = conn.Close() // serve is done with it
			}()
		}
	}()
}

// serveLines answers "DELAY MS" with "+done" after MS milliseconds, and refuses
// everything else as Redis does. If greeting is not empty, it is sent first.
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

// heartbeat is a protocol in which both sides repeatedly send that they are alive.
type heartbeat struct {
	asks, answers []string // the exchanges at the start
	client        string   // the client sends this every beatEvery
	server        string   // the server sends this every beatEvery
	echo          string   // the server's answer to each of the client's heartbeats
	message       string   // a client publishes this
	delivery      string   // what a subscriber receives for it; the client is a subscriber too
}

// beatEvery is the interval between heartbeats.
const beatEvery = 5 * time.Second

var errNoBeat = errors.New("received something other than a heartbeat or a message")

// end is one side of a connection with heartbeats.
type end struct {
	conn      net.Conn
	own       string       // this side sends it every beatEvery
	beat      string       // the other side's heartbeat
	echo      string       // the answer to that
	message   string       // the only other thing that the other side may send
	onMessage func() error // called for each message
}

// run sends heartbeats and reads what the other side sends, until the connection or
// ctx ends.
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
				return // brokers also close at once
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
	_ = server.run(ctx) // until the client disconnects
}

// open is the client's side. It returns when the exchanges at the start are done.
// publish publishes a message, and returns when it was delivered.
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
