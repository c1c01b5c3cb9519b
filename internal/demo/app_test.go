package demo

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastcall/counters/file"
	"lastcall/internal/demo/registry"
	"lastcall/internal/test/wait"
)

// signalled returns a context that ends on a signal, like the one that main passes
// to Run.
func signalled() (context.Context, func()) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// world is a registry, and an app in this process.
type world struct {
	registry *registry.Registry
	eureka   string // the service URL
	number   *file.Counter
	stop     func()
	ended    chan error // receives the app's result
}

func newWorld(t *testing.T) *world {
	t.Helper()
	r := registry.New(20 * time.Millisecond)
	go r.Run(t.Context())
	s := httptest.NewServer(r.Handler())
	t.Cleanup(s.Close)
	number := filepath.Join(t.TempDir(), "inflight")
	counter, err := file.New(file.Config{Path: number})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := &world{registry: r, eureka: s.URL + "/eureka", number: counter, stop: stop, ended: make(chan error, 1)}
	go func() {
		w.ended <- app(ctx, appConfig{Pod: "web-1", Eureka: w.eureka, File: number, Heartbeat: 10 * time.Millisecond, Longest: time.Minute})
	}()
	wait.Until(t, "the registration", func() bool { return r.Status(appName, "web-1") == registry.Up })
	return w
}

// address returns the app's address according to the registry.
func (w *world) address(t *testing.T) string {
	t.Helper()
	c := newClient(quicker, w.eureka, newTrace("", nil), 0)
	var known []string
	wait.Until(t, "the app in the registry's answers", func() bool {
		known, _ = c.ask(t.Context())
		return len(known) == 1
	})
	return known[0]
}

func (w *world) counts(t *testing.T, want int64) {
	t.Helper()
	wait.Until(t, "the number in flight", func() bool {
		r, err := w.number.Count(t.Context())
		return err == nil && r.InFlight == want
	})
}

// When the app is told to stop, it finishes its requests and accepts no others.
func TestAppStopsWell(t *testing.T) {
	w := newWorld(t)
	address := w.address(t)
	answered := make(chan int, 1)
	go func() {
		a, err := http.Get("http://" + address + "/work?for=3s")
		if err != nil {
			answered <- 0
			return
		}
		_ = a.Body.Close()
		answered <- a.StatusCode
	}()
	w.counts(t, 1)
	w.stop()
	if err := <-w.ended; err != nil {
		t.Fatal(err)
	}
	if code := <-answered; code != http.StatusOK {
		t.Errorf("the request in flight was answered with %d", code)
	}
	w.counts(t, 0)
	if status := w.registry.Status(appName, "web-1"); status != "" {
		t.Errorf("the app is still in the registry, as %s", status)
	}
	if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		_ = c.Close()
		t.Error("the app still listens")
	}
}

// An instance that is unknown to the registry is registered again, as the Java
// client does.
func TestAppRegistersAgain(t *testing.T) {
	w := newWorld(t)
	e := newEurekaClient(w.eureka, &registry.Instance{InstanceID: "web-1"})
	if err := e.deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "another registration", func() bool { return w.registry.Status(appName, "web-1") == registry.Up })
	w.stop()
	if err := <-w.ended; err != nil {
		t.Fatal(err)
	}
}

func TestAppRefusesOddWork(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	address := w.address(t)
	for _, took := range []string{"", "x", "-1s", "2m"} {
		a, err := http.Get("http://" + address + "/work?for=" + took)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		if a.StatusCode != http.StatusBadRequest {
			t.Errorf("for=%s: got %d", took, a.StatusCode)
		}
	}
	w.counts(t, 0)
}

// A client uses its copy even when the registry is gone, and learns of changes only
// when it asks.
func TestClientCaches(t *testing.T) {
	w := newWorld(t)
	address := w.address(t)
	c := newClient(quicker, w.eureka, newTrace("", nil), 1)
	if err := c.request(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "no instance") {
		t.Errorf("a client that has not asked: got %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go c.discover(ctx)
	wait.Until(t, "the client's discovery", func() bool { return len(c.known()) == 1 })
	stop()
	if err := c.request(t.Context(), time.Millisecond); err != nil {
		t.Errorf("a request to a live app: %v", err)
	}
	w.stop()
	<-w.ended
	if known := c.known(); len(known) != 1 || known[0] != address {
		t.Fatalf("the client knows %v, want the last answer", known)
	}
	if err := c.request(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "http://") {
		t.Errorf("a request to an app that is gone: got %v", err)
	}
}

func TestClientCountsFailures(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer s.Close()
	tr := newTrace("", nil)
	c := newClient(quicker, s.URL, tr, 1)
	c.cache = []string{strings.TrimPrefix(s.URL, "http://")}
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() { c.send(t.Context(), stop); close(ended) }()
	wait.Until(t, "a failure", func() bool { return len(tr.snapshot().failures) > 0 })
	close(stop)
	<-ended
	if got := tr.snapshot(); got.requests != len(got.failures) || got.working != 0 || got.failures[0].err != "502 Bad Gateway" {
		t.Fatalf("got %+v", got)
	}
}

func TestProcessThatFails(t *testing.T) {
	for _, test := range []struct{ script, says string }{
		{"echo one >&2; echo two >&2; exit 3", "it ended before it served: one\ntwo"},
		{"exec /nowhere", "it ended before it served"},
	} {
		_, err := start(t.Context(), "it", []string{"/bin/sh", "-c", test.script}, nil)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want an error that says %q", test.script, err, test.says)
		}
	}
	if _, err := start(t.Context(), "it", []string{"/nowhere"}, nil); err == nil || !strings.Contains(err.Error(), "starting it: ") {
		t.Errorf("got %v", err)
	}
}

func TestProcessThatWillNotEnd(t *testing.T) {
	p, err := start(t.Context(), "it", []string{"/bin/sh", "-c", `trap "" TERM; echo '{"msg": "serving", "address": "here"}' >&2; while :; do read x || sleep 1; done`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.address != "here" {
		t.Errorf("it serves at %q", p.address)
	}
	if p.end(t.Context(), 50*time.Millisecond) {
		t.Error("end reports that it ended by itself")
	}
	<-p.ended
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LASTCALL_TOKEN", "somebody's")
	t.Setenv("OTHER", "kept")
	env := strings.Join(environment(map[string]string{"LASTCALL_QUIET": "1s"}), "\n") + "\n"
	if strings.Contains(env, "LASTCALL_TOKEN") || !strings.Contains(env, "OTHER=kept\n") || !strings.Contains(env, "LASTCALL_QUIET=1s\n") {
		t.Errorf("got %s", env)
	}
}
