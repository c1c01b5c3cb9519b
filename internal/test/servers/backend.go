package servers

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Backend is an app behind a proxy. The test controls when it answers.
//
// It answers `/hold?id=N` when the test releases it, `/upload` when it has the
// whole body, and `/upgrade` with a WebSocket that it keeps open and silent. It
// answers all other requests at once.
type Backend struct {
	Address string // host and port

	mu   sync.Mutex
	last int
	held map[int]*Held
}

// Held is a request that has reached the backend and has no answer yet.
type Held struct {
	arrived  chan struct{} // gets a token when the request has arrived
	release  chan struct{}
	once     sync.Once
	answered chan struct{}
	err      error // the client's result, once answered
	cancel   context.CancelFunc
}

// StartBackend starts a backend that is stopped at the end of the test.
func StartBackend(t testing.TB) *Backend {
	t.Helper()
	b := &Backend{held: make(map[int]*Held)}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	})
	mux.HandleFunc("/hold", b.hold)
	mux.HandleFunc("/upgrade", b.upgrade)
	server := httptest.NewServer(mux)
	b.Address = server.Listener.Addr().String()
	t.Cleanup(func() {
		b.ReleaseAll()
		server.CloseClientConnections()
		server.Close()
	})
	return b
}

// ReleaseAll lets the backend answer all held requests.
func (b *Backend) ReleaseAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.held {
		h.Release()
	}
}

func (b *Backend) hold(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.Atoi(r.FormValue("id"))
	b.mu.Lock()
	h := b.held[id]
	b.mu.Unlock()
	if h == nil {
		http.Error(w, "no such id", http.StatusNotFound)
		return
	}
	select {
	case h.arrived <- struct{}{}:
	default: // the proxy has sent it twice
	}
	<-h.release
	_, _ = io.WriteString(w, "ok")
}

func (b *Backend) upgrade(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }() // no written data can be lost
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	_, _ = io.Copy(io.Discard, conn) // until the other side closes
}

// Hold sends a request through client to base, the address of a proxy of the
// backend. It returns when the backend has the request.
func (b *Backend) Hold(t testing.TB, client *http.Client, base string) *Held {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &Held{
		arrived: make(chan struct{}, 1), release: make(chan struct{}), answered: make(chan struct{}), cancel: cancel,
	}
	b.mu.Lock()
	b.last++
	id := b.last
	b.held[id] = h
	b.mu.Unlock()
	go func() {
		defer close(h.answered)
		h.err = get(ctx, client, fmt.Sprintf("%s/hold?id=%d", base, id))
	}()
	t.Cleanup(func() {
		cancel()
		<-h.answered
	})
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-h.arrived:
	case <-h.answered:
		t.Fatalf("a request to %s has not reached the backend: %v", base, h.err)
	case <-deadline.C:
		t.Fatalf("a request to %s has not reached the backend after %v", base, patience)
	}
	return h
}

// Release lets the backend answer.
func (h *Held) Release() { h.once.Do(func() { close(h.release) }) }

// Abort makes the client go away.
func (h *Held) Abort() {
	h.cancel()
	<-h.answered
}

// Answer waits for the client's answer. It returns an error unless the status is
// 200.
func (h *Held) Answer(t testing.TB) error {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-h.answered:
		return h.err
	case <-deadline.C:
		t.Fatalf("no answer after %v", patience)
		return nil
	}
}

// End lets the backend answer, and returns when the client has the answer.
func (h *Held) End(t testing.TB) {
	t.Helper()
	h.Release()
	if err := h.Answer(t); err != nil {
		t.Fatalf("a request in flight has failed: %v", err)
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

// Client returns an HTTP/1.1 client with its own connections, which it keeps open
// until the end of the test.
func Client(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// HTTP2Client returns a client that speaks HTTP/2 without TLS on one connection,
// which it keeps open until the end of the test.
func HTTP2Client(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// IdleConnection makes one request to address, and keeps the connection open and
// idle until the end of the test.
func IdleConnection(t testing.TB, address string) {
	t.Helper()
	conn := Connect(t, address)
	if answer := Say(t, conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Fatalf("%s answers %q", address, answer)
	}
}

// WebSocket opens a WebSocket through address to the backend.
func WebSocket(t testing.TB, address string) net.Conn {
	t.Helper()
	conn := Connect(t, address)
	answer := Say(t, conn, "GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%s answers %q", address, answer)
	}
	return conn
}

// Connect opens a TCP connection that is closed at the end of the test.
func Connect(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Say writes text to conn and returns the first part of the answer.
func Say(t testing.TB, conn net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, err := conn.Read(answer)
	if err != nil {
		t.Fatalf("after %q: %v", text, err)
	}
	return string(answer[:n])
}
