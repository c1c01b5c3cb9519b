// Package system runs the program as a pod does, with the real registry and the
// real proxies, and tests what happens when they fail.
package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
	"lastcall/internal/test/wait"
)

var program sidecar.Program

func TestMain(m *testing.M) { os.Exit(sidecar.Main(m, &program)) }

// app is the app's container: a server that holds its requests until the test
// releases them, and writes their number to a file.
type app struct {
	t    *testing.T
	port int
	file string

	mu       sync.Mutex
	inFlight int
	server   *http.Server
	ended    chan struct{} // closed when the server has ended
	arrived  chan struct{}
	release  chan struct{}
}

func startApp(t *testing.T) *app {
	t.Helper()
	a := &app{
		t:       t,
		file:    filepath.Join(t.TempDir(), "inflight"),
		arrived: make(chan struct{}), release: make(chan struct{}),
	}
	a.count(0)
	a.start()
	t.Cleanup(a.stop)
	return a
}

// count adds by to the number of requests in flight.
func (a *app) count(by int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight += by
	a.write(strconv.Itoa(a.inFlight))
}

// write replaces the content of the file atomically.
func (a *app) write(text string) {
	err := os.WriteFile(a.file+".tmp", []byte(text), 0o600)
	if err = errors.Join(err, os.Rename(a.file+".tmp", a.file)); err != nil {
		a.t.Error(err)
	}
}

// start starts listening, on the same port each time.
func (a *app) start() {
	a.t.Helper()
	var listener net.Listener
	wait.For(a.t, "the app's port being free", func() (err error) {
		listener, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(a.port))
		return err
	})
	a.port = listener.Addr().(*net.TCPAddr).Port
	a.server, a.ended = &http.Server{Handler: a, ReadHeaderTimeout: wait.Patience}, make(chan struct{})
	go func() {
		_ = a.server.Serve(listener) // until it is closed
		close(a.ended)
	}()
}

// stop ends the app: its port has no listener any more.
func (a *app) stop() {
	_ = a.server.Close()
	<-a.ended
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.count(1)
	defer a.count(-1)
	select {
	case a.arrived <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	select {
	case <-a.release:
		_, _ = io.WriteString(w, "done")
	case <-r.Context().Done():
	}
}

// request puts a request in flight. The returned function ends it, and fails the
// test if the client gets no answer.
func (a *app) request() (end func()) {
	a.t.Helper()
	answered := make(chan error, 1)
	client := servers.Client(a.t)
	go func() {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", a.port))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close() // read to its end
		}
		answered <- err
	}()
	select {
	case <-a.arrived:
	case err := <-answered:
		a.t.Fatalf("a request has not reached the app: %v", err)
	}
	return func() {
		a.t.Helper()
		a.release <- struct{}{}
		if err := <-answered; err != nil {
			a.t.Errorf("a request in flight has failed: %v", err)
		}
	}
}

// announced is an app that is registered in Consul.
type announced struct {
	*app
	consul *servers.ConsulAgent
	id     string
}

// announce registers the app as its client would, and waits until it is listed.
func announce(t *testing.T, a *app, consul *servers.ConsulAgent) *announced {
	t.Helper()
	n := register(t, a, consul)
	n.awaitListed(t, true)
	return n
}

// register registers the app without waiting.
func register(t *testing.T, a *app, consul *servers.ConsulAgent) *announced {
	t.Helper()
	n := &announced{app: a, consul: consul, id: fmt.Sprintf("web-%d", a.port)}
	err := consul.Client(t).Agent().ServiceRegister(&api.AgentServiceRegistration{ID: n.id, Name: "web", Address: "127.0.0.1", Port: a.port})
	if err != nil {
		t.Fatalf("registering the app: %v", err)
	}
	return n
}

// listed reports whether Consul lists the app to clients.
func (n *announced) listed(t *testing.T) bool {
	t.Helper()
	entries, _, err := n.consul.Client(t).Health().Service("web", "", true, nil)
	if err != nil {
		t.Fatalf("asking Consul: %v", err)
	}
	return slices.ContainsFunc(entries, func(e *api.ServiceEntry) bool { return e.Service.ID == n.id })
}

// known reports whether the app is registered in Consul.
func (n *announced) known(t *testing.T) bool {
	t.Helper()
	services, err := n.consul.Client(t).Agent().Services()
	if err != nil {
		t.Fatalf("asking Consul: %v", err)
	}
	return services[n.id] != nil
}

func (n *announced) awaitListed(t *testing.T, want bool) {
	t.Helper()
	wait.For(t, fmt.Sprintf("Consul listing the app: %v", want), func() error {
		if n.listed(t) != want {
			return errors.New("it does not say so")
		}
		return nil
	})
}

// env returns the environment of the app's sidecar, with short waits and a budget
// that no test uses up. more overrides it.
func (a *app) env(more ...string) []string {
	return append([]string{
		"LASTCALL_APP_PORT=" + strconv.Itoa(a.port),
		"LASTCALL_POD_IP=127.0.0.1",
		"LASTCALL_COUNTERS=file",
		"LASTCALL_FILE_PATH=" + a.file,
		"LASTCALL_GRACE_PERIOD=10m",
		"LASTCALL_RESERVE=5s",
		"LASTCALL_ENDPOINTS_WAIT=100ms",
		"LASTCALL_QUIET=100ms",
	}, more...)
}

// withConsul is env with a Consul server at address.
func (a *app) withConsul(address string, more ...string) []string {
	return append(a.env(
		"LASTCALL_REGISTRIES=consul",
		"CONSUL_HTTP_ADDR="+address,
		"LASTCALL_CONSUL_CLIENT_REFRESH=100ms",
	), more...)
}

// short sets a budget of 2 s.
func short() []string { return []string{"LASTCALL_GRACE_PERIOD=6s", "LASTCALL_RESERVE=4s"} }

// startFound starts a sidecar, and returns when it has found the app's instance.
func startFound(t *testing.T, env []string) *sidecar.Sidecar {
	t.Helper()
	s := sidecar.Start(t, &program, env...)
	s.AwaitLog(t, "instance found")
	return s
}

// prestop calls the hook, and waits for the answer.
func prestop(t *testing.T, s *sidecar.Sidecar) sidecar.Answer {
	t.Helper()
	return sidecar.Wait(t, s.PreStop(t.Context()), wait.Patience)
}

// drains waits for the hook's answer, and checks that the pod has drained.
func drains(t *testing.T, hook <-chan sidecar.Answer) drain.Report {
	t.Helper()
	a := sidecar.Wait(t, hook, wait.Patience)
	if a.Err != nil || a.Code != http.StatusOK {
		t.Fatalf("the hook was answered %d %s %v", a.Code, a.Body, a.Err)
	}
	return a.Report(t)
}

// waiting checks that the hook has no answer yet.
func waiting(t *testing.T, hook <-chan sidecar.Answer) {
	t.Helper()
	select {
	case a := <-hook:
		t.Fatalf("the hook was answered too soon: %d %s %v", a.Code, a.Body, a.Err)
	default:
	}
}

// holds reports whether a drain waits for n requests.
func holds(n int64) func(drain.Status) bool {
	return func(s drain.Status) bool { return s.Phase == drain.Draining && s.InFlight != nil && *s.InFlight == n }
}

// exits waits until the sidecar ends, and checks its exit code.
func exits(t *testing.T, s *sidecar.Sidecar, code int) {
	t.Helper()
	if got := s.ExitCode(t); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

// endsDeregistered stops the app, and checks that the sidecar exits with 0 and has
// deregistered the app.
func endsDeregistered(t *testing.T, s *sidecar.Sidecar, app *announced) {
	t.Helper()
	app.stop()
	exits(t, s, 0)
	if app.known(t) {
		t.Error("the instance is still registered")
	}
}

// awaitAppGone waits until the sidecar has noticed that the app does not listen.
func awaitAppGone(t *testing.T, s *sidecar.Sidecar) {
	t.Helper()
	s.Await(t, "the sidecar noticing that the app does not listen", func(status drain.Status) bool {
		return status.Timeline[len(status.Timeline)-1].Text == "the app does not listen"
	})
}

// front is a proxy between the sidecar and a real server. Tests can make it fail.
type front struct {
	t       *testing.T
	address string
	proxy   *httputil.ReverseProxy

	mu     sync.Mutex
	fault  http.HandlerFunc // nil: no fault
	server *http.Server     // nil: nothing listens
	mended chan struct{}    // closed when a fault ends
}

func startFront(t *testing.T, target string) *front {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{t: t, address: "127.0.0.1:0", mended: make(chan struct{})}
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		// A new connection for each call, because the server may be killed.
		Transport:    &http.Transport{DisableKeepAlives: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	f.listen()
	t.Cleanup(f.refuse)
	return f
}

func (f *front) url() string { return "http://" + f.address }

func (f *front) listen() {
	f.t.Helper()
	var listener net.Listener
	wait.For(f.t, "the address being free", func() (err error) {
		listener, err = net.Listen("tcp", f.address)
		return err
	})
	f.address = listener.Addr().String()
	server := &http.Server{Handler: f, ReadHeaderTimeout: wait.Patience}
	go func() { _ = server.Serve(listener) }() // until it is closed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = server
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault == nil {
		f.proxy.ServeHTTP(w, r)
		return
	}
	fault(w, r)
}

// fail answers every call with fault, until repair.
func (f *front) fail(fault http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// hang leaves every call without an answer, until repair.
func (f *front) hang() {
	f.mu.Lock()
	mended := make(chan struct{})
	f.mended = mended
	f.mu.Unlock()
	f.fail(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-mended:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
}

// refuse closes the listener, until repair.
func (f *front) refuse() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server != nil {
		_ = f.server.Close()
		f.server = nil
	}
}

// repair ends any fault.
func (f *front) repair() {
	f.t.Helper()
	f.mu.Lock()
	f.fault = nil
	select {
	case <-f.mended:
	default:
		close(f.mended)
	}
	refuses := f.server == nil
	f.mu.Unlock()
	if refuses {
		f.listen()
	}
}

// within returns a context that ends after wait.Patience.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	t.Cleanup(cancel)
	return ctx
}

// startUnfound starts a sidecar, and returns when it has searched for the app's
// instance without success.
func startUnfound(t *testing.T, env []string) *sidecar.Sidecar {
	t.Helper()
	s := sidecar.Start(t, &program, env...)
	s.AwaitLog(t, "the pod's instance was not found")
	return s
}
