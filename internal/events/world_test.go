package events

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

// apiServer stands in for the API server, for failures that a real one does not
// have on demand. Its network is in memory, so that tests can use fake time.
type apiServer struct {
	began time.Time
	dials chan net.Conn
	gone  chan struct{} // closed when the server stops listening
	once  sync.Once

	mu      sync.Mutex
	answers []http.HandlerFunc // to the next calls, in order; then 201
	refuses bool               // connections are refused
	mute    int                // how many of the next connections get no handshake
	dialed  []string           // addresses
	calls   []call
}

// call is one call that the API server received.
type call struct {
	after time.Duration // since the test began
	token string
	event event
}

// inPod runs f with a Writer in a pod. It returns when all goroutines have ended.
func inPod(t *testing.T, f func(t *testing.T, w *Writer, api *apiServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{began: time.Now(), dials: make(chan net.Conn), gone: make(chan struct{})}
		server := httptest.NewUnstartedServer(api)
		server.Listener = api
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
		server.StartTLS()
		defer server.Close()

		w, err := New(mounted(t, server.Certificate().Raw, tokenOf(claims)))
		if err != nil {
			t.Fatal(err)
		}
		w.dial = api.dial
		f(t, w, api)
		w.end()
	})
}

// claims are the claims that the API server puts into a pod's token.
const claims = `{"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:shop:default", "kubernetes.io": {
	"namespace": "shop", "node": {"name": "n1", "uid": "00"}, "pod": {"name": "web-0", "uid": "7d3f"}, "serviceaccount": {"name": "default", "uid": "01"}}}`

func tokenOf(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{part([]byte(`{"alg": "RS256"}`)), part([]byte(claims)), part([]byte("signed"))}, ".")
}

// mounted returns the Config of a pod with files as the kubelet mounts them.
func mounted(t *testing.T, certificate []byte, token string) Config {
	t.Helper()
	cfg := Config{Host: "127.0.0.1", Port: "6443", Dir: t.TempDir()}
	mount(t, cfg.Dir, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	mount(t, cfg.Dir, "token", token)
	return cfg
}

func mount(t *testing.T, dir, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Accept, Close and Addr implement net.Listener.
func (a *apiServer) Accept() (net.Conn, error) {
	select {
	case conn := <-a.dials:
		return conn, nil
	case <-a.gone:
		return nil, net.ErrClosed
	}
}

func (a *apiServer) Close() error {
	a.once.Do(func() { close(a.gone) })
	return nil
}

func (a *apiServer) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6443} }

func (a *apiServer) dial(ctx context.Context, _, address string) (net.Conn, error) {
	a.mu.Lock()
	a.dialed = append(a.dialed, address)
	refuses, mute := a.refuses, a.mute > 0
	a.mute--
	a.mu.Unlock()
	if refuses {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: a.Addr(), Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	if mute {
		return ours, nil
	}
	select {
	case a.dials <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c := call{after: time.Since(a.began), token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}
	a.mu.Lock()
	if err != nil || json.Unmarshal(body, &c.event) != nil || r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/shop/events" {
		c.event.Reason = fmt.Sprintf("%s %s %s %v", r.Method, r.URL, body, err)
	}
	a.calls = append(a.calls, c)
	answer := created
	if len(a.answers) > 0 {
		answer, a.answers = a.answers[0], a.answers[1:]
	}
	a.mu.Unlock()
	answer(w, r)
}

// answer sets the answers to the next calls.
func (a *apiServer) answer(answers ...http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers = answers
}

func (a *apiServer) refuse(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuses = yes
}

// addresses returns the addresses that were dialed.
func (a *apiServer) addresses() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dialed
}

// had returns the calls since the last had, and forgets them.
func (a *apiServer) had() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := a.calls
	a.calls = nil
	return calls
}

// reasons returns the reasons of the calls since the last had, and forgets them.
func (a *apiServer) reasons() string {
	var all []string
	for _, c := range a.had() {
		all = append(all, c.event.Reason)
	}
	return strings.Join(all, " ")
}

func created(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, `{"kind": "Event"}`)
}

// refused answers with an error as the API server words it.
func refused(code int, message string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Failure", "message": message, "code": code})
	}
}

// hangs never answers.
func hangs(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// breaks breaks the connection off.
func breaks(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// happens returns an Event of the current time.
func happens(eventType drain.EventType) drain.Event {
	return drain.Event{Type: eventType, At: time.Now(), Text: "something of the kind " + string(eventType)}
}

// settled sleeps for d, and then waits until all goroutines are blocked.
func settled(d time.Duration) {
	<-time.After(d) // fake time
	synctest.Wait()
}

// flushed calls Flush with a limit, and returns how long it took.
func flushed(w *Writer, limit time.Duration) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	w.Flush(ctx)
	return time.Since(began)
}

// logged collects the log.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	return &log
}
