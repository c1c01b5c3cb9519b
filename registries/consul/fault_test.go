package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// calls returns all methods that the drainer calls.
func calls(r *Registry) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Withdraw":   r.Withdraw,
		"Restore":    r.Restore,
		"Deregister": r.Deregister,
		"Withdrawn": func(ctx context.Context) error {
			gone, err := r.Withdrawn(ctx)
			if err != nil && gone {
				return errors.New("Withdrawn returns true together with an error")
			}
			return err
		},
		"Find": func(ctx context.Context) error {
			_, err := r.Find(ctx)
			return err
		},
	}
}

// at returns the plug-in for the Consul in config, with the instance found by
// its id.
func at(t *testing.T, config Config) *Registry {
	t.Helper()
	config.ServiceID = "web-1"
	r, err := New(config, drain.Pod{Name: "web-0", IP: "10.1.2.3"})
	check(t, err)
	return r
}

// failing expects every call to fail before its deadline, with an error that
// contains each of the texts and no secret.
func failing(t *testing.T, r *Registry, texts ...string) {
	t.Helper()
	for name, call := range calls(r) {
		ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
		err := call(ctx)
		cancel()
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q; want it to hold %q", name, err, text)
			}
		}
		if strings.Contains(err.Error(), secret) || strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 1000 {
			t.Errorf("%s: the error holds a secret, is not one line or is too long: %.2000q", name, err)
		}
	}
}

const secret = "open-sesame-42"

func TestAnswersThatAreNone(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		texts  []string
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
		}, []string{"HTTP status 500", "No cluster leader"}},
		{"500 without a word", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
		}, []string{"HTTP status 500"}},
		{"a long complaint over many lines", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte(strings.Repeat("<html>\r\n\x00\t bad gateway ü\n", 1_000_000)))
		}, []string{"HTTP status 502", "bad gateway"}},
		{"an echo of what was sent", func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintln(w, "sent by", user, password, r.Header)
		}, []string{"HTTP status 400", "sent by kim ***"}},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>Hello</html>"))
		}, []string{"invalid character"}},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, []string{"EOF"}},
		{"another type", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`[1, 2, 3]`))
		}, []string{"cannot unmarshal"}},
		{"a body without end", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"web-1": {"Meta": {"a": "`))
			for _, err := w.Write(nil); err == nil; {
				_, err = w.Write([]byte(strings.Repeat("a", 1<<16)))
			}
		}, []string{"longer than 4 MiB"}},
		{"an agent that may only be read from here", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Access is restricted", http.StatusForbidden)
		}, []string{"HTTP status 403", "allow_write_http_from"}},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusTemporaryRedirect)
		}, []string{"HTTP status 307", "CONSUL_HTTP_ADDR"}},
		{"a dropped connection", func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, []string{"EOF"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.answer)
			t.Cleanup(server.Close)
			failing(t, at(t, Config{Address: server.URL, Token: secret, Auth: "kim:" + secret}), append(test.texts, server.URL)...)
		})
	}
}

// TestHalfAnAnswer: an incomplete answer must not be used as a complete one.
func TestHalfAnAnswer(t *testing.T) {
	const service = `{"ID": "web-1", "Service": "web"}`
	for _, test := range []struct{ name, agent, health string }{
		{"null for a service", `{"web-1": null}`, `null`},
		{"null for an entry", `{}`, `[null]`},
		{"an entry without a node", `{}`, `[{"Service": ` + service + `, "Checks": []}]`},
		{"an entry without a service", `{}`, `[{"Node": {"Node": "n"}, "Checks": []}]`},
		{"null for a check", `{}`, `[{"Node": {"Node": "n"}, "Service": ` + service + `, "Checks": [null]}]`},
		{"null for all", `null`, `null`},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method != http.MethodGet:
					t.Errorf("something was written: %s %s", r.Method, r.URL.Path)
				case r.URL.Path == "/v1/catalog/services":
					_, _ = w.Write([]byte(`{"web": []}`))
				case r.URL.Path == "/v1/agent/services":
					_, _ = w.Write([]byte(test.agent))
				case strings.HasPrefix(r.URL.Path, "/v1/health/"):
					_, _ = w.Write([]byte(test.health))
				default:
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
			}))
			t.Cleanup(server.Close)
			for name, call := range calls(at(t, Config{Address: server.URL})) {
				if err := call(t.Context()); err == nil && name == "Find" {
					t.Errorf("%s: no error", name)
				}
			}
		})
	}
}

// TestHangs: a server that accepts the connection and sends nothing, and one
// that stops in the middle of its answer.
func TestHangs(t *testing.T) {
	for _, test := range []struct {
		name  string
		begin string
	}{{"at once", ""}, {"in the middle", `{"web-1": {`}} {
		t.Run(test.name, func(t *testing.T) {
			end := make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if test.begin != "" {
					_, _ = w.Write([]byte(test.begin))
					_ = http.NewResponseController(w).Flush()
				}
				<-end
			}))
			t.Cleanup(server.Close)
			t.Cleanup(func() { close(end) })
			for name, call := range calls(at(t, Config{Address: server.URL})) {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v; want a deadline that has passed", name, err)
				}
				cancel()
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	address := listener.Addr().String()
	check(t, listener.Close())
	failing(t, at(t, Config{Address: address, Token: secret}), "connection refused", "CONSUL_HTTP_ADDR", address)
}

// TestRealServerFails: the server hangs, continues, crashes, and comes back.
func TestRealServerFails(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	agent := servers.StartConsul(t, servers.ConsulOptions{Join: server})
	h := onNodeAgent(t, agent)
	h.Register(t)
	r := h.plugIn(t)
	must(t, func(ctx context.Context) error { _, err := r.Find(ctx); return err })

	soon := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(t.Context(), 300*time.Millisecond)
	}
	agent.Freeze(t)
	hangs := func(name string, call func(context.Context) error) {
		t.Helper()
		ctx, cancel := soon()
		defer cancel()
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the agent hangs: %s: %v", name, err)
		}
	}
	for name, call := range calls(r) {
		if name != "Deregister" { // the agent carries it out later; see below
			hangs(name, call)
		}
	}
	agent.Thaw(t)
	must(t, r.Withdraw)
	wait.Until(t, "Withdrawn", func() bool { return withdrawn(t, r) })

	// Without its server, the agent cannot return what clients discover. It
	// carries out what it is asked to do, or keeps it until it reaches the
	// server.
	must(t, r.Restore)
	wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	server.Freeze(t)
	ctx, cancel := soon()
	if err := r.Withdraw(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the server hangs: Withdraw: %v", err)
	}
	cancel()
	ctx, cancel = soon()
	if gone, err := r.Withdrawn(ctx); err == nil {
		t.Errorf("the server hangs: Withdrawn: %v, no error", gone)
	}
	cancel()
	server.Thaw(t)
	wait.Until(t, "Withdrawn once the server goes on", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.Withdraw(ctx); err != nil {
			return false
		}
		gone, err := r.Withdrawn(ctx)
		return err == nil && gone
	})
	if h.Listed(t) {
		t.Error("Withdrawn returns true, but a client still gets the instance")
	}

	agent.Kill()
	wait.Until(t, "the agent's end being noticed", func() bool { _, ok := r.stands(); return !ok })
	failing(t, r, "CONSUL_HTTP_ADDR")
	agent.Start(t)
	must(t, r.Restore)
	wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	agent.Freeze(t)
	hangs("Deregister", r.Deregister)
	agent.Thaw(t)
}

// TestTokenFileIsReadAgain: by the time that a pod is deleted, its token may
// have been replaced several times.
func TestTokenFileIsReadAgain(t *testing.T) {
	var (
		mu  sync.Mutex
		got string
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = r.Header.Get("X-Consul-Token")
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	sent := func(r *Registry) string {
		must(t, r.Withdraw)
		mu.Lock()
		defer mu.Unlock()
		return got
	}
	check(t, os.WriteFile(file, []byte("first\n"), 0o600))
	r := at(t, Config{Address: server.URL, TokenFile: file, Token: "not this one"})
	if got := sent(r); got != "first" {
		t.Errorf("the token sent is %q, want the file's", got)
	}
	check(t, os.WriteFile(file, []byte("second"), 0o600))
	if got := sent(r); got != "second" {
		t.Errorf("the token sent is %q, want the one that the file holds now", got)
	}
	check(t, os.WriteFile(file, nil, 0o600))
	if got := sent(r); got != "first" {
		t.Errorf("the token sent while the file is empty is %q, want the start's", got)
	}
}

// TestConsulsOwnVariables checks how Consul's own variables change a call.
func TestConsulsOwnVariables(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "consul.sock")
	listener, err := net.Listen("unix", socket)
	check(t, err)
	var (
		mu   sync.Mutex
		seen *http.Request
	)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = r
		_, _ = w.Write([]byte("{}"))
	})}
	go func() { _ = server.Serve(listener) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
	r := at(t, Config{Address: "unix://" + socket, Token: "t", Auth: "kim:pass:word", Namespace: "team", Partition: "east"})
	must(t, r.Withdraw)
	mu.Lock()
	defer mu.Unlock()
	user, password, _ := seen.BasicAuth()
	for what, pair := range map[string][2]string{
		"namespace": {seen.URL.Query().Get("ns"), "team"},
		"partition": {seen.URL.Query().Get("partition"), "east"},
		"token":     {seen.Header.Get("X-Consul-Token"), "t"},
		"user":      {user, "kim"},
		"password":  {password, "pass:word"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q was sent, want %q", what, pair[0], pair[1])
		}
	}
}

// TestAtTheSameTime makes all calls concurrently, for the race detector.
func TestAtTheSameTime(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{})
	h := agentless(t, server)
	h.Register(t)
	r := h.plugIn(t)
	var wg sync.WaitGroup
	for range 8 {
		for name, call := range calls(r) {
			if name == "Deregister" {
				continue
			}
			wg.Go(func() {
				if err := call(t.Context()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	wg.Wait()
	must(t, r.Withdraw)
	if !withdrawn(t, r) || h.Listed(t) {
		t.Error("the instance is still listed")
	}
}
