package eureka

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// A fake server stands for what only a broken server does.

func brokenServer(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL
}

func newRegistry(t *testing.T, cfg Config) *Registry {
	t.Helper()
	if cfg.Status == "" {
		cfg.Status = outOfService
	}
	r, err := New(cfg, drain.Pod{IP: "10.0.0.1", AppPort: 8080})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// calls returns all methods that the drainer calls.
func calls(r *Registry) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Withdraw": r.Withdraw,
		"Withdrawn": func(ctx context.Context) error {
			gone, err := r.Withdrawn(ctx)
			if gone && err == nil {
				return nil
			}
			if err == nil {
				return errors.New("(still listed)")
			}
			return err
		},
		"Restore":    r.Restore,
		"Deregister": r.Deregister,
		"Find":       func(ctx context.Context) error { _, err := r.Find(ctx); return err },
	}
}

// ways returns the ways to configure the instance.
func ways() map[string]Config {
	return map[string]Config{
		"by address":             {},
		"by address and app":     {App: "orders"},
		"by id":                  {InstanceID: "pod-1"},
		"by id and app":          {App: "orders", InstanceID: "pod-1"},
		"by id and app, as DOWN": {App: "orders", InstanceID: "pod-1", Status: down},
	}
}

func TestBrokenServers(t *testing.T) {
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := refusing.Close(); err != nil {
		t.Fatal(err)
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	endless := func(begin, more string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.WriteString(w, begin)
			for err == nil {
				_, err = io.WriteString(w, more)
			}
		}
	}
	for _, test := range []struct {
		name string
		url  string
		want string // must be in every error
	}{
		{"refuses", "http://" + refusing.Addr().String(), "connection refused"},
		{"unknown name", "http://eureka.invalid", "eureka.invalid"},
		{"500", brokenServer(t, status(500)), "see the server's log (status 500)"},
		{"503", brokenServer(t, status(503)), "see the server's log (status 503)"},
		{"401", brokenServer(t, status(401)), "USER:PASSWORD@ before its host in LASTCALL_EUREKA_URLS (status 401)"},
		{"403", brokenServer(t, status(403)), "CSRF protection"},
		{"404", brokenServer(t, status(404)), "no Eureka server at this path"},
		{"418", brokenServer(t, status(418)), "unexpected answer (status 418)"},
		{"redirect loop", brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+r.URL.Path, http.StatusTemporaryRedirect)
		}), "redirects to http://127.0.0.1:"},
		{"redirect to elsewhere", brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://user:secret@eureka.example/login?token=secret", http.StatusFound)
		}), "redirects to https://eureka.example, "},
		{"redirect to nowhere", brokenServer(t, status(http.StatusTemporaryRedirect)), "redirects, which is not followed (status 307)"},
		{"hangs up", brokenServer(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "EOF"},
		{"page", brokenServer(t, text("<!DOCTYPE html><p>Welcome!")), "not an answer of Eureka's"},
		{"garbage", brokenServer(t, text("\x00\xff garbage")), "not an answer of Eureka's"},
		{"nothing", brokenServer(t, text("")), "not an answer of Eureka's"},
		{"other JSON", brokenServer(t, text(`{"status":"UP"}`)), "not an answer of Eureka's"},
		{"cut off", brokenServer(t, text(`{"applications":{"application":[{"name":"ORDERS","instance":[{"app":"ORDERS"`)), ""},
		{"endless text", brokenServer(t, endless(`{"applications":{"application":[{"name":"`, strings.Repeat("x", 4096))), ""},
		{"endless list", brokenServer(t, endless(`{"applications":[`, strings.Repeat("11111111111111111111111111111111,", 128))), ""},
		{"deep", brokenServer(t, endless(`{"applications":`, strings.Repeat("[", 4096))), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for way, cfg := range ways() {
				cfg.URLs = []string{test.url}
				for name, f := range calls(newRegistry(t, cfg)) {
					err := f(t.Context())
					if test.name == "nothing" && name == "Deregister" && err == nil {
						continue // a server that has carried out the call sends such an answer
					}
					if err == nil || !strings.HasPrefix(err.Error(), test.url) {
						t.Errorf("%s, %s: got %v, want an error that begins with %s", name, way, err, test.url)
					} else if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
						t.Errorf("%s, %s: got %v, want %q in it, and no secrets", name, way, err, test.want)
					}
				}
			}
		})
	}
}

// An answer with more instances than any registry has is not read endlessly:
// its size is limited. A machine that takes too long for that ends it earlier.
func TestAnswerWithoutEnd(t *testing.T) {
	t.Parallel()
	block := strings.Repeat(`{"app":"OTHER","metadata":"`+strings.Repeat("x", 32<<10)+`"},`, 30)
	r := newRegistry(t, Config{URLs: []string{brokenServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, `{"applications":{"application":[{"name":"OTHER","instance":[`)
		for err == nil {
			_, err = io.WriteString(w, block)
		}
	})}})
	if err := r.Withdraw(t.Context()); err == nil || !strings.Contains(err.Error(), tooLarge) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want an error that names a limit", err)
	}
}

const tooLarge = "the answer is larger than 64 MiB"

// endless is an infinite body.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestBounded(t *testing.T) {
	b, p := &bounded{Reader: endless{}}, make([]byte, 64<<10)
	read := 0
	for {
		n, err := b.Read(p)
		read += n
		b.since = 0 // one more instance
		if err == nil {
			continue
		}
		if err.Error() != tooLarge || read > maxAnswer+len(p) {
			t.Errorf("after %d bytes: %v", read, err)
		}
		return
	}
}

// A peer that is clearly down is left out while another answers. A peer that
// may only be unreachable from this pod is not.
func TestPeersThatAreDown(t *testing.T) {
	good := brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/apps/ORDERS"):
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("Accept") == asXML:
			_, _ = io.WriteString(w, "<applications/>")
		default:
			_, _ = io.WriteString(w, `{"applications":{"application":[]}}`)
		}
	})
	for _, test := range []struct {
		cause error
		down  bool
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, true},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "eureka-1", IsNotFound: true}}, true},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: "eureka-1", IsTemporary: true}}, false},
		{&net.OpError{Op: "dial", Err: &net.DNSError{UnwrapErr: os.NewSyscallError("connect", syscall.ECONNREFUSED), Err: "connection refused", Name: "eureka-1"}}, false},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, false},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}, false},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, false},
		{io.EOF, false},
	} {
		for _, urls := range [][]string{{good, "http://eureka-1"}, {"http://eureka-1", good}, {"http://eureka-0", "http://eureka-1"}} {
			r := newRegistry(t, Config{URLs: urls, InstanceID: "pod-1", App: "orders"})
			dial := r.peers[0].transport.DialContext
			r.peers[0].transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "eureka-") {
					return nil, test.cause
				}
				return dial(ctx, network, address)
			}
			wantErr := !test.down || !slices.Contains(urls, good)
			if err := r.Withdraw(t.Context()); (err != nil) != wantErr {
				t.Errorf("%v: Withdraw of %v: got %v", test.cause, urls, err)
			}
			if gone, err := r.Withdrawn(t.Context()); (err != nil) != wantErr || gone == wantErr {
				t.Errorf("%v: Withdrawn of %v: got %v, %v", test.cause, urls, gone, err)
			}
		}
	}
}

// A server that never answers, or never ends its answer, holds up a call no
// longer than the call's context.
func TestHangingServers(t *testing.T) {
	for _, begin := range []string{"", `{"applications":{"application":[`} {
		asked := make(chan struct{}, 100)
		hanging := brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
			if begin != "" {
				_, _ = io.WriteString(w, begin)
				_ = http.NewResponseController(w).Flush()
			}
			asked <- struct{}{}
			<-r.Context().Done()
		})
		for way, cfg := range ways() {
			cfg.URLs = []string{hanging}
			for name, f := range calls(newRegistry(t, cfg)) {
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- f(ctx) }()
				<-asked
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) && begin == "" {
					t.Errorf("%s, %s: got %v, want an error that is context.Canceled", name, way, err)
				} else if err == nil {
					t.Errorf("%s, %s: no error", name, way)
				}
			}
		}
	}
}

// No credentials appear in errors and logs, whatever fails and however much is
// logged.
func TestNoCredentialsInErrorsAndLogs(t *testing.T) {
	var logged locked
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		slog.SetDefault(before)
		RouteLogs()
	})
	RouteLogs()

	const user, password = "lastcall-user", `p@ss/w0rd:?#[]%&" +ä`
	var authorized, calls401 int
	wants := brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		calls401++
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			authorized++
		}
		w.WriteHeader(http.StatusUnauthorized)
	})
	hangs := brokenServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	redirects := brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+url.UserPassword(user, password).String()+"@"+r.Host, http.StatusFound)
	})
	for _, server := range []string{wants, hangs, redirects, "http://127.0.0.1:1", "http://eureka.invalid"} {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(user, password)
		for _, cfg := range ways() {
			cfg.URLs = []string{u.String()}
			for name, f := range calls(newRegistry(t, cfg)) {
				ctx, cancel := context.WithCancel(t.Context())
				if server == hangs {
					cancel()
				}
				err := f(ctx)
				cancel()
				if err == nil {
					t.Errorf("%s at %s: no error", name, server)
				}
				leaks(t, fmt.Sprint("the error of ", name), err.Error(), user, password)
			}
		}
	}
	if authorized == 0 || authorized != calls401 {
		t.Errorf("%d of %d calls had the user and password", authorized, calls401)
	}
	if !strings.Contains(logged.String(), "eureka client: ") {
		t.Errorf("the library's log is not routed to slog: %s", logged.String())
	}
	leaks(t, "the log", logged.String(), user, password)
}

func leaks(t *testing.T, where, text, user, password string) {
	t.Helper()
	for _, secret := range []string{user, password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword(user, password).String(), "w0rd", "Basic "} {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds %q: %s", where, secret, text)
		}
	}
}

// locked is a buffer that is safe for concurrent use.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Certificates are verified against the system's authorities and those of
// LASTCALL_EUREKA_CA_FILE, unless LASTCALL_EUREKA_INSECURE is set.
func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/eureka/instances/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, `{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}`)
	}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{URLs: []string{s.URL + "/eureka"}, InstanceID: "pod-1"}
	if err := newRegistry(t, cfg).Withdraw(t.Context()); err == nil || !strings.Contains(err.Error(), "LASTCALL_EUREKA_CA_FILE") {
		t.Errorf("with a certificate of an unknown authority: got %v, want an error that names LASTCALL_EUREKA_CA_FILE", err)
	}
	cfg.CAFile = file
	registrytest.Call(t, "Withdraw with the authority's file", newRegistry(t, cfg).Withdraw)
	cfg.CAFile, cfg.Insecure = "", true
	registrytest.Call(t, "Withdraw without verification", newRegistry(t, cfg).Withdraw)
}

// Each answer that clients read can be the last to change.
func TestEveryAnswerCounts(t *testing.T) {
	inst := func(status, action string) (asJSON, asXML string) {
		const updated = 4102444800000 // in the future, so never older than the answer's Date
		return fmt.Sprintf(`{"instanceId":"pod-1","app":"ORDERS","ipAddr":"10.0.0.1","status":%q,"overriddenStatus":"OUT_OF_SERVICE","port":{"$":8080,"@enabled":"true"},"actionType":%q,"lastUpdatedTimestamp":"%d"}`, status, action, updated),
			fmt.Sprintf(`<instance><instanceId>pod-1</instanceId><app>ORDERS</app><ipAddr>10.0.0.1</ipAddr><status>%s</status><port enabled="true">8080</port><actionType>%s</actionType></instance>`, status, action)
	}
	upJSON, upXML := inst(up, "ADDED")
	outJSON, outXML := inst(outOfService, "MODIFIED")
	deletedJSON, deletedXML := inst(up, "DELETED")
	type answer struct{ path, accept string }
	in := func(a answer, one string) string {
		switch a {
		case answer{"/apps", asJSON}, answer{"/apps/delta", asJSON}:
			return `{"applications":{"versions__delta":"1","apps__hashcode":"","application":[{"name":"ORDERS","instance":[` + one + `]}]}}`
		case answer{"/apps", asXML}, answer{"/apps/delta", asXML}:
			return `<applications><application><name>ORDERS</name>` + one + `</application></applications>`
		case answer{"/apps/ORDERS", asJSON}:
			return `{"application":{"name":"ORDERS","instance":[` + one + `]}}`
		case answer{"/apps/ORDERS", asXML}:
			return `<application><name>ORDERS</name>` + one + `</application>`
		}
		return `{"instance":` + one + `}`
	}
	all := []answer{
		{"/apps/ORDERS/pod-1", asJSON},
		{"/apps/delta", asJSON}, {"/apps/delta", asXML},
		{"/apps/ORDERS", asJSON}, {"/apps/ORDERS", asXML},
		{"/apps", asJSON}, {"/apps", asXML},
	}
	good := func() map[answer]string {
		answers := map[answer]string{}
		for _, a := range all {
			one := outJSON
			if a.accept == asXML {
				one = outXML
			}
			answers[a] = in(a, one)
		}
		return answers
	}
	ask := func(t *testing.T, answers map[answer]string) (bool, error) {
		server := brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
			body, ok := answers[answer{r.URL.Path, r.Header.Get("Accept")}]
			switch {
			case !ok:
				t.Errorf("%s was asked for as %s", r.URL.Path, r.Header.Get("Accept"))
				w.WriteHeader(http.StatusNotFound)
			case body == "403":
				w.WriteHeader(http.StatusForbidden)
			case body == "404":
				w.WriteHeader(http.StatusNotFound)
			default:
				_, _ = io.WriteString(w, body)
			}
		})
		return newRegistry(t, Config{URLs: []string{server}, App: "orders", InstanceID: "pod-1"}).Withdrawn(t.Context())
	}

	if gone, err := ask(t, good()); !gone || err != nil {
		t.Fatalf("with the instance out of service everywhere: got %v, %v; want true", gone, err)
	}
	for _, a := range all {
		name := strings.TrimPrefix(a.path, "/") + " as " + a.accept
		one, deleted, none := upJSON, deletedJSON, ""
		if a.accept == asXML {
			one, deleted = upXML, deletedXML
		}
		answers := good()
		answers[a] = in(a, one)
		if gone, err := ask(t, answers); gone || err != nil {
			t.Errorf("%s lists it as UP: got %v, %v; want false", name, gone, err)
		}
		answers[a] = in(a, deleted)
		if gone, err := ask(t, answers); !gone || err != nil {
			t.Errorf("%s shows that it was deleted: got %v, %v; want true", name, gone, err)
		}
		answers[a] = "403"
		if gone, err := ask(t, answers); gone != (a.path == "/apps/delta") || gone == (err != nil) {
			t.Errorf("%s is refused: got %v, %v; want an error, but where only changes are", name, gone, err)
		}
		answers[a] = "404"
		wantGone := a.path == "/apps/ORDERS" || a.path == "/apps/ORDERS/pod-1"
		if gone, err := ask(t, answers); gone != wantGone || gone == (err != nil) {
			t.Errorf("%s is not there: got %v, %v; want %v", name, gone, err, wantGone)
		}
		if a.path == "/apps/ORDERS/pod-1" {
			continue
		}
		// The list of changes must show the instance; other answers need not
		// hold it.
		answers[a] = in(a, none)
		if gone, err := ask(t, answers); gone == (a.path == "/apps/delta") || err != nil {
			t.Errorf("%s does not show it: got %v, %v", name, gone, err)
		}
	}
}

// Once the whole registry has been seen without the pod, it is not read again
// and again.
func TestWholeRegistryIsReadOnce(t *testing.T) {
	var mu sync.Mutex
	reads, updated := 0, 1
	server := brokenServer(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.HasSuffix(r.URL.Path, "/pod-1"):
			_, _ = fmt.Fprintf(w, `{"instance":{"instanceId":"pod-1","app":"ORDERS","status":"OUT_OF_SERVICE","lastUpdatedTimestamp":%d}}`, updated)
		case r.URL.Path == "/apps/ORDERS":
			w.WriteHeader(http.StatusNotFound)
		default:
			if r.URL.Path == "/apps" {
				reads++
			}
			if r.Header.Get("Accept") == asXML {
				_, _ = io.WriteString(w, "<applications/>")
				return
			}
			_, _ = io.WriteString(w, `{"applications":{"application":[]}}`)
		}
	})
	r := newRegistry(t, Config{URLs: []string{server}, App: "orders", InstanceID: "pod-1"})
	want := func(n int) {
		t.Helper()
		if !registrytest.Withdrawn(t, r) {
			t.Fatal("Withdrawn returns false")
		}
		mu.Lock()
		defer mu.Unlock()
		if reads != n {
			t.Errorf("the registry was read %d times, want %d", reads, n)
		}
	}
	want(2) // as JSON and as XML
	want(2)
	mu.Lock()
	updated++
	mu.Unlock()
	want(4)
	registrytest.Call(t, "Restore", r.Restore)
	want(6)
}

// The methods are safe for concurrent use.
func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	s := startServers(t, oneServer)
	a := newApp(s, nil)
	a.Register(t)
	r := a.registry(t)
	var running sync.WaitGroup
	for range 4 {
		for _, f := range calls(r) {
			running.Go(func() { _ = f(t.Context()) }) // for the race detector
		}
	}
	running.Wait()
}
