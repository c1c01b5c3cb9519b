package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// after waits until d of the bubble's time has passed.
func after(d time.Duration) { <-time.After(d) }

// seconds converts a JSON number of seconds.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

var errBroken = errors.New("broken on purpose")

// registry is a fake registry. Its calls succeed unless it is broken.
type registry struct {
	mu        sync.Mutex
	broken    error
	withdrawn bool
	unknown   bool // true if it has never held the instance
}

// Located reports whether the registry has ever held the instance.
func (r *registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.unknown
}

// setUnknown makes it a registry that has never held the instance.
func (r *registry) setUnknown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unknown = true
}

// setKnown makes it a registry that has held the instance.
func (r *registry) setKnown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unknown = false
}

func (r *registry) do(change func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken == nil {
		change()
	}
	return r.broken
}

func (r *registry) Withdraw(context.Context) error { return r.do(func() { r.withdrawn = true }) }
func (r *registry) Restore(context.Context) error  { return r.do(func() { r.withdrawn = false }) }
func (r *registry) Deregister(context.Context) error {
	return r.do(func() { r.withdrawn = true })
}

func (r *registry) Withdrawn(context.Context) (gone bool, err error) {
	err = r.do(func() { gone = r.withdrawn || r.unknown })
	return gone, err
}

// setBroken makes every call fail with err. A nil err ends that.
func (r *registry) setBroken(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = err
}

// counter is a fake counter that returns a number.
type counter struct {
	mu       sync.Mutex
	broken   error
	inFlight int64
}

func (c *counter) set(n int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight, c.broken = n, err
}

func (c *counter) Count(context.Context) (drain.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return drain.Reading{InFlight: c.inFlight, Arrived: 7, HasArrived: true}, c.broken
}

// edge is the server of one running drainer, and the pod around it.
type edge struct {
	t        *testing.T
	d        *drain.Drainer
	cfg      drain.Config
	handler  http.Handler
	registry *registry
	counter  *counter
}

// settings changes how an edge is made.
type settings func(*drain.Config, *Options)

func withToken(token string) settings {
	return func(_ *drain.Config, o *Options) { o.Token = token }
}

// newEdge makes an edge with a registry "reg", whose clients refresh within a
// second, and a counter "count"; its drain has a budget of 25 s.
func newEdge(t *testing.T, change ...settings) *edge {
	t.Helper()
	e := &edge{t: t, registry: &registry{}, counter: &counter{}}
	e.cfg = drain.Config{
		GracePeriod:   30 * time.Second,
		Reserve:       5 * time.Second,
		EndpointsWait: 3 * time.Second,
		Quiet:         time.Second,
		Poll:          100 * time.Millisecond,
		Registries:    []drain.NamedRegistry{{Name: "reg", Registry: e.registry, ClientRefresh: time.Second}},
		Counters:      []drain.NamedCounter{{Name: "count", Counter: e.counter}},
	}
	options := Options{Version: "v1.2.3", appReadyLimit: wait.Patience}
	for _, c := range change {
		c(&e.cfg, &options)
	}
	e.d = drain.New(e.cfg)
	e.handler = Handler(e.d, options)
	ended := make(chan struct{})
	go func() {
		_ = e.d.Run(context.Background()) // most tests interrupt it
		close(ended)
	}()
	t.Cleanup(func() {
		e.d.Stop()
		e.d.Interrupt()
		<-ended
	})
	return e
}

// bubble runs a test with fake time, which passes only while all goroutines
// wait.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// call makes one call. headers are names and values in turn.
func (e *edge) call(method, path string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	return e.callBy(e.t.Context(), method, path, headers...)
}

func (e *edge) callBy(ctx context.Context, method, path string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	r := httptest.NewRequestWithContext(ctx, method, path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	e.handler.ServeHTTP(w, r)
	return w
}

// later makes a call in another goroutine. The returned channel receives the
// answer.
func (e *edge) later(method, path string, headers ...string) <-chan *httptest.ResponseRecorder {
	answered := make(chan *httptest.ResponseRecorder, 1)
	go func() { answered <- e.call(method, path, headers...) }()
	return answered
}

// answered reports whether the answer has arrived.
func answered(c <-chan *httptest.ResponseRecorder) bool {
	synctest.Wait()
	return len(c) > 0
}

// wants checks an answer's code and content type, which is JSON except for the
// probes' "ok". It also checks the form of JSON errors.
func wants(t *testing.T, w *httptest.ResponseRecorder, code int) {
	t.Helper()
	if w.Code != code {
		t.Fatalf("answers %d %s, want %d", w.Code, w.Body, code)
	}
	kind, body := w.Header().Get("Content-Type"), w.Body.String()
	if kind == "text/plain; charset=utf-8" && code == http.StatusOK && body == "ok\n" {
		return
	}
	if kind != "application/json" || !json.Valid([]byte(body)) || !strings.HasSuffix(body, "\n") {
		t.Fatalf("answers %d as %q: %s", code, kind, body)
	}
}

// wantsError checks that an answer is an error that contains all of says.
func wantsError(t *testing.T, w *httptest.ResponseRecorder, code int, says ...string) {
	t.Helper()
	wants(t, w, code)
	var body map[string]string
	read(t, w, &body)
	if len(body) != 1 || body["error"] == "" {
		t.Fatalf("the error is %s, want {\"error\": …}", w.Body)
	}
	for _, s := range says {
		if !strings.Contains(body["error"], s) {
			t.Errorf("the error %q does not say %q", body["error"], s)
		}
	}
}

// read decodes all of an answer. An unknown field fails the test.
func read(t *testing.T, w *httptest.ResponseRecorder, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("decoding %s: %v", w.Body, err)
	}
}

func reportOf(t *testing.T, w *httptest.ResponseRecorder) (r drain.Report) {
	t.Helper()
	read(t, w, &r)
	return r
}

func (e *edge) status() (s drain.Status) {
	e.t.Helper()
	w := e.call(http.MethodGet, "/status")
	wants(e.t, w, http.StatusOK)
	read(e.t, w, &s)
	return s
}

// serve starts the real server on connections that live in the bubble.
func (e *edge) serve(options Options) *network {
	n := &network{t: e.t, incoming: make(chan net.Conn), closed: make(chan struct{})}
	server := New(e.d, options)
	ended := make(chan struct{})
	go func() {
		_ = server.Serve(n) // ends when it is closed
		close(ended)
	}()
	e.t.Cleanup(func() {
		_ = server.Close() // also closes its connections
		<-ended
	})
	return n
}

// network is a listener whose connections are pipes.
type network struct {
	t        *testing.T
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.incoming:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// wire is one connection as its caller sees it: byte for byte.
type wire struct {
	net.Conn
	over chan struct{} // closed when the server has closed the connection

	mu  sync.Mutex
	got bytes.Buffer
}

func (n *network) dial() *wire { return n.dialFrom("") }

// dialFrom connects like dial, from the given address if it is not empty.
func (n *network) dialFrom(address string) *wire {
	n.t.Helper()
	ours, theirs := net.Pipe()
	w := &wire{Conn: ours, over: make(chan struct{})}
	if address != "" {
		theirs = &addressed{theirs, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 1024))}
	}
	n.incoming <- theirs
	go func() {
		_, _ = io.Copy(writer{w}, ours) // until the server closes
		close(w.over)
	}()
	n.t.Cleanup(func() { _ = ours.Close() }) // the server may have closed it too
	return w
}

// addressed is a connection whose caller has an address.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a *addressed) RemoteAddr() net.Addr { return a.remote }

// say sends text, without waiting for the server to take all of it.
func (w *wire) say(text string) {
	go func() { _, _ = io.WriteString(w.Conn, text) }() // the server may not want all of it
}

// received returns all that the server has sent so far.
func (w *wire) received() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}

// closed reports whether the server has closed the connection.
func (w *wire) closed() bool {
	synctest.Wait()
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

type writer struct{ *wire }

func (w writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.Write(b)
}
