package counting

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pattern is another way in which clients and servers communicate. Each has its own
// server in Go.
type pattern struct {
	name    string
	tls     bool
	lengths []time.Duration // of the measured request; 0: none is in flight
	http2   bool            // the server also supports HTTP/2
	serve   func(context.Context, net.Conn)
	client  func(t testing.TB, at *target, w *work) *behavior
}

// patterns returns all patterns.
func patterns() []pattern {
	long := []time.Duration{8 * time.Second, 20 * time.Second}
	idle := []time.Duration{0}
	ofHTTP := func(name string, lengths []time.Duration, ask asking) pattern {
		return pattern{name: name, lengths: lengths, client: func(_ testing.TB, at *target, w *work) *behavior {
			return asked(at, w, ask)
		}}
	}
	all := []pattern{
		ofHTTP("Expect: 100-continue", long, askExpecting),
		ofHTTP("103 Early Hints", long, askPath("/hints")),
		ofHTTP("102 Processing every 3 s", long, askPath("/processing")),
		ofHTTP("headers flushed, then work", long, askPath("/flush")),
		ofHTTP("half of the body, then work", long, askPath("/halves")),
		ofHTTP("body in pieces, with pauses", long, askPath("/pieces")),
		ofHTTP("server-sent events, one every 6 s", long[1:], askPath("/events")),
		ofHTTP("spaces while at work", long, askPath("/spaces")),
		ofHTTP("Connection: close", long, askPath("/close")),
		ofHTTP("headers and body apart", long, askInTwo),
		ofHTTP("slow upload, then a fast answer", long, askUploading),
		ofHTTP("request byte by byte", long[:1], askByByte),
		ofHTTP("request of many segments", long[:1], askLargely),
		ofHTTP("slow download", long, askDownloading),
		ofHTTP("client has closed its half", long[:1], askHalfClosing),
		{name: "PROXY protocol, then a request", lengths: long[:1], serve: serveProxied, client: func(_ testing.TB, at *target, w *work) *behavior {
			return asked(at, w, askProxied)
		}},
		{name: "PROXY protocol, no request", lengths: idle, serve: serveProxied, client: func(_ testing.TB, at *target, w *work) *behavior {
			return silent(at, w, proxyHeader)
		}},
		{name: "no request", lengths: idle, client: func(_ testing.TB, at *target, w *work) *behavior { return silent(at, w, "") }},
		{name: "client at the node's address", lengths: long[:1], client: func(_ testing.TB, at *target, w *work) *behavior {
			atNode := *at
			if atNode.clients == nil {
				atNode.from = nodeAddress
			}
			return freshly(&atNode, w)
		}},
		{name: "clients at the node's address keep coming", lengths: long, client: func(_ testing.TB, at *target, w *work) *behavior {
			atNode := *at
			if atNode.clients == nil {
				atNode.from = nodeAddress
			}
			return coming(&atNode, w, 800*time.Millisecond, 250*time.Millisecond)
		}},
		{name: "clients keep coming", lengths: long, client: func(_ testing.TB, at *target, w *work) *behavior {
			return coming(at, w, 10*time.Millisecond, 140*time.Millisecond)
		}},
		{name: "probes every second, a request in work", lengths: long, client: func(_ testing.TB, at *target, w *work) *behavior {
			return withProbes(freshly(at, w), at, true)
		}},
		{name: "probes every second, idle", lengths: idle, client: func(_ testing.TB, at *target, w *work) *behavior {
			return withProbes(idling(at, w), at, true)
		}},
		{name: "TCP probes every second, idle", lengths: idle, client: func(_ testing.TB, at *target, w *work) *behavior {
			return withProbes(idling(at, w), at, false)
		}},
		{name: "lines, as Redis", lengths: append(long, 0), serve: serveLines(""), client: lines("")},
		{name: "lines, the server speaks first", lengths: append(long, 0), serve: serveLines(greeting), client: lines(greeting)},
		{name: "WebSocket, the server pings, a message in work", lengths: long, client: pinged(3)},
		{name: "WebSocket, the server pings, idle", lengths: idle, client: pinged(3)},
		{name: "20 WebSockets, the server pings, idle", lengths: idle, client: pinged(20)},
		{name: "HTTP/2, streams of several lengths", lengths: long, http2: true, client: streams(0)},
		{name: "HTTP/2, idle, the client pings", lengths: idle, http2: true, client: streams(5 * time.Second)},
		{name: "HTTP/2, the client pings, streams in work", lengths: long, http2: true, client: streams(5 * time.Second)},
	}
	for name, h := range map[string]*heartbeat{
		"MQTT, idle": {
			asks: []string{"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"}, answers: []string{"\x20\x02\x00\x00"},
			client: "\xc0\x00", echo: "\xd0\x00",
			message:  "\x30\x48\x00\x06orders" + strings.Repeat("m", 64),
			delivery: "\x30\x48\x00\x06orders" + strings.Repeat("m", 64),
		},
		"AMQP, idle": {
			asks:    []string{"AMQP\x00\x00\x09\x01", strings.Repeat("s", 120), strings.Repeat("t", 40)},
			answers: []string{strings.Repeat("S", 500), strings.Repeat("T", 20), strings.Repeat("O", 13)},
			client:  "\x08\x00\x00\x00\x00\x00\x00\xce", server: "\x08\x00\x00\x00\x00\x00\x00\xce",
			message:  "\x01" + strings.Repeat("p", 120),
			delivery: "\x01" + strings.Repeat("d", 140),
		},
		"STOMP, idle": {
			asks: []string{"CONNECT\naccept-version:1.2\nheart-beat:5000,5000\n\n\x00"}, answers: []string{"CONNECTED\nversion:1.2\nheart-beat:5000,5000\n\n\x00"},
			client: "\n", server: "\n",
			message:  "SEND\ndestination:orders\n\nsixty bytes or so of a message\x00",
			delivery: "MESSAGE\ndestination:orders\nmessage-id:1\n\nsixty bytes or so of a message\x00",
		},
	} {
		all = append(all, pattern{name: name, lengths: idle, serve: h.serve, client: func(_ testing.TB, at *target, w *work) *behavior {
			return beating(at, w, h)
		}})
	}
	// Each pattern with TLS too.
	for _, p := range all[:len(all):len(all)] {
		if strings.HasPrefix(p.name, "PROXY") || p.name == "client has closed its half" {
			continue // the PROXY header comes before TLS, and TLS has its own end of a connection
		}
		p.tls = true
		all = append(all, p)
	}
	return all
}

// The addresses of the hook's caller, the kubelet, and of clients on the loopback
// interface.
const (
	nodeAddress     = "127.0.0.1"
	loopbackClients = "127.0.0.2"
)

// asking sends a request on a new connection, and reads the answer. It calls sent
// when a part of the request has been sent.
type asking func(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error

// asked opens a new connection for each request.
func asked(at *target, w *work, ask asking) *behavior {
	get := func(ctx context.Context, d time.Duration, began func()) error {
		conn, err := at.dial(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // the answer was read, or there is an error
		if err := conn.SetDeadline(time.Now().Add(2*d + patience)); err != nil {
			return err
		}
		end := func(error) {}
		var once sync.Once
		err = ask(ctx, conn, bufio.NewReader(conn), d, func() {
			once.Do(func() {
				end = w.begin(fmt.Sprintf("request of %v", d))
				began()
			})
		})
		end(err)
		return err
	}
	slow := func(ctx context.Context, d time.Duration) error { return get(ctx, d, func() {}) }
	return &behavior{
		fast:     func(ctx context.Context) error { return slow(ctx, short) },
		slow:     slow,
		measured: get,
		close:    func() {},
	}
}

// header returns the header of a request that takes d.
func header(method, path string, d time.Duration, fields ...string) string {
	return fmt.Sprintf("%s %s/%d HTTP/1.1\r\nHost: app\r\nUser-Agent: bench\r\n%s\r\n", method, path, d.Milliseconds(), strings.Join(append(fields, ""), "\r\n"))
}

// send sends texts one after the other, with pauses between them.
func send(ctx context.Context, conn io.Writer, sent func(), pause time.Duration, texts ...string) error {
	for i, text := range texts {
		if i > 0 {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
		if i == 0 {
			sent()
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
	}
	return nil
}

// readEnd reads an answer whose body ends with "done". It skips answers of the
// class 1xx before it.
func readEnd(read *bufio.Reader) error {
	for {
		resp, err := http.ReadResponse(read, nil)
		if err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 2*downloadSize))
		_ = resp.Body.Close() // it was read to its end
		if err != nil {
			return fmt.Errorf("reading the answer's body: %w", err)
		}
		if resp.StatusCode < http.StatusOK {
			continue
		}
		if resp.StatusCode != http.StatusOK || !bytes.HasSuffix(body, []byte("done")) {
			return fmt.Errorf("%w: %s %.100q", errNotDone, resp.Status, body)
		}
		return nil
	}
}

func askPath(path string) asking {
	return func(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
		if err := send(ctx, conn, sent, 0, header("GET", path, d)); err != nil {
			return err
		}
		return readEnd(read)
	}
}

func askExpecting(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	if err := send(ctx, conn, sent, 0, header("POST", "/upload", d, "Content-Length: 5", "Expect: 100-continue")); err != nil {
		return err
	}
	resp, err := http.ReadResponse(read, nil)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // it has no body
	if resp.StatusCode != http.StatusContinue {
		return fmt.Errorf("%w: %s", errNotDone, resp.Status)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	return readEnd(read)
}

func askInTwo(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	if err := send(ctx, conn, sent, 50*time.Millisecond, header("POST", "/upload", d, "Content-Length: 5"), "hello"); err != nil {
		return err
	}
	return readEnd(read)
}

func askUploading(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	if err := send(ctx, conn, sent, d/4, header("POST", "/upload", short, "Content-Length: 20"), "hello", "hello", "hello", "hello"); err != nil {
		return err
	}
	return readEnd(read)
}

func askByByte(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	text := "GET /delay/50 HTTP/1.1\r\nHost: app\r\n\r\n"
	if err := send(ctx, conn, sent, d/time.Duration(len(text)), strings.Split(text, "")...); err != nil {
		return err
	}
	return readEnd(read)
}

func askLargely(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	const large = 500_000
	text := header("POST", "/upload", d, fmt.Sprintf("Content-Length: %d", large)) + strings.Repeat("x", large)
	if err := send(ctx, conn, sent, 0, text); err != nil {
		return err
	}
	return readEnd(read)
}

func askDownloading(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	if err := send(ctx, conn, sent, 0, header("GET", "/download", d)); err != nil {
		return err
	}
	if _, err := read.Peek(1); err != nil {
		return err
	}
	if err := sleep(ctx, d); err != nil {
		return err
	}
	return readEnd(read)
}

func askHalfClosing(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	if err := send(ctx, conn, sent, 0, header("GET", "/delay", d)); err != nil {
		return err
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	return readEnd(read)
}

// proxyHeader is a header of the PROXY protocol, version 2, as load balancers send
// it.
const proxyHeader = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x9c\x40\x1f\x90"

func askProxied(ctx context.Context, conn net.Conn, read *bufio.Reader, d time.Duration, sent func()) error {
	if _, err := io.WriteString(conn, proxyHeader); err != nil {
		return err
	}
	return askPath("/delay")(ctx, conn, read, d, sent)
}

// serveProxied removes the header, and answers one request.
func serveProxied(_ context.Context, conn net.Conn) {
	got := make([]byte, len(proxyHeader))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != proxyHeader {
		return
	}
	single := &oneConnection{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	single.conn <- &notifying{conn, single.closed, sync.Once{}}
	server := &http.Server{Handler: answers(), ReadHeaderTimeout: 2 * time.Minute} //nolint:contextcheck // each request has its own context
	_ = server.Serve(single)                                                       // until the connection is closed
}

// oneConnection is a listener that returns one connection and then ends with it.
type oneConnection struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneConnection) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (*oneConnection) Close() error   { return nil }
func (*oneConnection) Addr() net.Addr { return &net.TCPAddr{} }

// notifying closes a channel when the connection is closed.
type notifying struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *notifying) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// silent has three connections that send at most a text, and no request.
func silent(at *target, _ *work, text string) *behavior {
	var connections []net.Conn
	return waiting(func(ctx context.Context) error {
		for range 3 {
			conn, err := at.dial(ctx)
			if err != nil {
				return err
			}
			connections = append(connections, conn)
			if _, err := io.WriteString(conn, text); err != nil {
				return err
			}
		}
		return nil
	}, func() { closeConns(connections) })
}

func closeConns(connections []net.Conn) {
	for _, c := range connections {
		_ = c.Close() // the app may have closed it
	}
}

// waiting makes no requests after prepare; its history is only the passage of time.
func waiting(prepare func(context.Context) error, end func()) *behavior {
	return &behavior{
		prepare:  prepare,
		history:  func(ctx context.Context) error { return sleep(ctx, historyLasts) },
		fast:     func(context.Context) error { return nil },
		measured: func(_ context.Context, _ time.Duration, began func()) error { began(); return nil },
		close:    end,
	}
}

// seldom is too long a gap between two clients: LASTCALL_QUIET might pass.
const seldom = 700 * time.Millisecond

var errSeldom = errors.New("the machine was so busy that the next client came too late")

// coming starts clients for a while. Each has its own connection and request. The
// drain should last until the last of them.
func coming(at *target, w *work, takes, every time.Duration) *behavior {
	f := freshConnections{at, w}
	come := func(ctx context.Context, d, longest time.Duration) error {
		var all sync.WaitGroup
		var mu sync.Mutex
		var failed error
		last := time.Now()
		for began := last; time.Since(began) < d; {
			if time.Since(last) > longest {
				mu.Lock()
				failed = errors.Join(failed, errSeldom)
				mu.Unlock()
				break
			}
			last = time.Now()
			all.Go(func() {
				err := f.get(ctx, takes)
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
			})
			if err := sleep(ctx, every); err != nil {
				break // the requests fail too
			}
		}
		all.Wait()
		return failed
	}
	return &behavior{
		fast: func(ctx context.Context) error { return come(ctx, every, patience) },
		slow: func(ctx context.Context, d time.Duration) error { return come(ctx, d, patience) },
		measured: func(ctx context.Context, d time.Duration, began func()) error {
			end := w.begin(fmt.Sprintf("clients that come for %v", d))
			began()
			err := come(ctx, d, seldom)
			end(err)
			return err
		},
		close: func() {},
	}
}

// withProbes lets the kubelet probe the app once a second, with a request or only a
// connection, until the run is over. The kubelet calls the hook from the same
// address.
func withProbes(b *behavior, app *target, request bool) *behavior {
	_, port, _ := net.SplitHostPort(app.address) // the address has a port
	kubelet := &target{address: net.JoinHostPort(nodeAddress, port), from: nodeAddress, tls: app.tls}
	over := make(chan struct{})
	probe := func(ctx context.Context) error {
		if !request {
			conn, err := kubelet.dialTCP(ctx, kubelet.address)
			if err == nil {
				err = conn.Close()
			}
			return err
		}
		conn, err := kubelet.dial(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // the answer was read, or there is an error
		if _, err := io.WriteString(conn, "GET /delay/5 HTTP/1.1\r\nHost: app\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n"); err != nil {
			return err
		}
		return readEnd(bufio.NewReader(conn))
	}
	prepare, closed := b.prepare, b.close
	b.prepare = func(ctx context.Context) error {
		if err := probe(ctx); err != nil {
			return fmt.Errorf("a probe: %w", err)
		}
		go func() {
			every := time.NewTicker(time.Second)
			defer every.Stop()
			for {
				select {
				case <-every.C:
					_ = probe(ctx) // the first probe was checked
				case <-over:
					return
				}
			}
		}()
		if prepare == nil {
			return nil
		}
		return prepare(ctx)
	}
	b.close = func() {
		close(over)
		closed()
	}
	return b
}

// beating has three connections with heartbeats. Before the measurement there are
// messages on two of them; during it there are only heartbeats.
func beating(at *target, w *work, h *heartbeat) *behavior {
	var connections []net.Conn
	var publish []func(context.Context) error
	publishing := func(ctx context.Context, by int) error {
		end := w.begin("message")
		err := publish[by](ctx)
		end(err)
		return err
	}
	return &behavior{
		prepare: func(ctx context.Context) error {
			for range 3 {
				conn, err := at.dial(ctx)
				if err != nil {
					return err
				}
				connections = append(connections, conn)
				p, err := h.open(ctx, conn)
				if err != nil {
					return err
				}
				publish = append(publish, p)
			}
			return nil
		},
		fast:     func(ctx context.Context) error { return publishing(ctx, 0) },
		slow:     func(ctx context.Context, _ time.Duration) error { return publishing(ctx, 1) },
		measured: func(_ context.Context, _ time.Duration, began func()) error { began(); return nil },
		close:    func() { closeConns(connections) },
	}
}

const greeting = "220 app ready\r\n"

// lines is a client of serveLines with two connections.
func lines(greeting string) func(testing.TB, *target, *work) *behavior {
	return func(_ testing.TB, at *target, w *work) *behavior {
		pool := make([]*lineClient, 2)
		return &behavior{
			prepare: func(ctx context.Context) error {
				for i := range pool {
					conn, err := at.dial(ctx)
					if err != nil {
						return err
					}
					pool[i] = &lineClient{conn: conn, read: bufio.NewReader(conn), w: w}
					if greeting == "" {
						continue
					}
					if got, err := pool[i].read.ReadString('\n'); err != nil || got != greeting {
						return fmt.Errorf("%w: %q: %w", errNotDone, got, err)
					}
				}
				return nil
			},
			fast: func(ctx context.Context) error { return pool[0].get(ctx, short) },
			slow: func(ctx context.Context, d time.Duration) error { return pool[1].get(ctx, d) },
			measured: func(ctx context.Context, d time.Duration, began func()) error {
				began()
				if d == 0 {
					return nil
				}
				return pool[0].get(ctx, d)
			},
			close: func() {
				for _, c := range pool {
					if c != nil {
						_ = c.conn.Close() // it may be closed already
					}
				}
			},
		}
	}
}

type lineClient struct {
	conn net.Conn
	read *bufio.Reader
	w    *work
}

func (c *lineClient) get(_ context.Context, d time.Duration) error {
	end := c.w.begin(fmt.Sprintf("DELAY %d", d.Milliseconds()))
	err := func() error {
		if err := c.conn.SetDeadline(time.Now().Add(d + patience)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c.conn, "DELAY %d\r\n", d.Milliseconds()); err != nil {
			return err
		}
		got, err := c.read.ReadString('\n')
		if err == nil && got != "+done\r\n" {
			err = fmt.Errorf("%w: %q", errNotDone, got)
		}
		return err
	}()
	end(err)
	return err
}

// pinged has WebSockets that the server pings.
func pinged(many int) func(testing.TB, *target, *work) *behavior {
	return func(_ testing.TB, at *target, w *work) *behavior {
		pinging := *at
		pinging.path = "/pinging-ws"
		b := onSockets(&pinging, w, many)
		measured := b.measured
		b.measured = func(ctx context.Context, d time.Duration, began func()) error {
			if d == 0 {
				began()
				return nil
			}
			return measured(ctx, d, began)
		}
		return b
	}
}

// streams has one HTTP/2 connection with several requests of different lengths at a
// time. The client pings when it has received nothing for the time ping, or never
// if ping is 0.
func streams(ping time.Duration) func(testing.TB, *target, *work) *behavior {
	return func(_ testing.TB, at *target, w *work) *behavior {
		by := *at
		scheme := "http"
		protocols := new(http.Protocols)
		if at.tls != nil {
			by.tls = at.tls.Clone()
			by.tls.NextProtos = []string{"h2"}
			scheme = "https"
			protocols.SetHTTP2(true)
		} else {
			protocols.SetUnencryptedHTTP2(true)
		}
		transport := &http.Transport{
			Protocols:      protocols,
			HTTP2:          &http.HTTP2Config{SendPingTimeout: ping},
			DialContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return by.dial(ctx) },
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return by.dial(ctx) },
		}
		client := &http.Client{Transport: transport}
		get := func(ctx context.Context, d time.Duration) error {
			end := w.begin(fmt.Sprintf("stream of %v", d))
			err := getDone(ctx, client, fmt.Sprintf("%s://%s/delay/%d", scheme, at.address, d.Milliseconds()), d)
			end(err)
			return err
		}
		all := func(ctx context.Context, lengths ...time.Duration) error {
			failed := make([]error, len(lengths))
			var group sync.WaitGroup
			for i, d := range lengths {
				group.Go(func() { failed[i] = get(ctx, d) })
			}
			group.Wait()
			return errors.Join(failed...)
		}
		return &behavior{
			prepare: func(ctx context.Context) error { return get(ctx, 0) }, // opens the connection
			fast:    func(ctx context.Context) error { return all(ctx, short, 0) },
			slow:    func(ctx context.Context, d time.Duration) error { return all(ctx, d/4, d) },
			measured: func(ctx context.Context, d time.Duration, began func()) error {
				began()
				if d == 0 {
					return nil
				}
				return all(ctx, short, d/4, d/2, d)
			},
			close: transport.CloseIdleConnections,
		}
	}
}

func getDone(ctx context.Context, client *http.Client, url string, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read to its end
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != "done" || resp.ProtoMajor != 2) {
		err = fmt.Errorf("%w: %s %s %q", errNotDone, resp.Proto, resp.Status, body)
	}
	return err
}

// serverTLS returns the TLS configuration of the patterns' servers.
func serverTLS(certificate tls.Certificate, http2 bool) *tls.Config {
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	if http2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	return config
}
