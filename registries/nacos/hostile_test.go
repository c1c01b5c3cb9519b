package nacos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lastcall/drain"
)

// before answers some requests itself, and passes on all others.
func (h *harness) before(t *testing.T, own func(http.ResponseWriter, *http.Request) bool) *harness {
	t.Helper()
	h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !own(w, r) {
			h.f.ServeHTTP(w, r)
		}
	}))}
	return h
}

// A gateway answers paths that it does not know with a page, a redirect, or a
// refusal of its own: the API that the server has is found all the same.
func TestGatewayBeforeOlderServers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"a page":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<!doctype html><p>hello")) },
		"other JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"UP"}`)) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"no route": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"code":404,"message":"no route"}`))
		},
		"a refusal": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "denied", http.StatusForbidden) },
	} {
		for _, major := range []int{1, 2} {
			h := kind{"", major, nil, beats}.start(t)
			h.before(t, func(w http.ResponseWriter, r *http.Request) bool {
				unknown := strings.HasPrefix(r.URL.Path, "/nacos/v3/") || major == 1 && strings.HasPrefix(r.URL.Path, "/nacos/v2/")
				if unknown {
					answer(w, r)
				}
				return unknown
			})
			h.Register(t)
			r := h.plugIn(t)
			find(t, r)
			do(t, "Withdraw", r.Withdraw)
			if !isWithdrawn(t, r) || h.Listed(t) {
				t.Errorf("%s before Nacos %d: it is listed", name, major)
			}
		}
	}
}

// A gateway that loses its server in the middle of a drain says nothing of the
// instance, whatever it answers.
func TestGatewayWithoutItsServer(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		for _, answer := range []struct {
			code int
			body string
		}{
			{200, "<!doctype html><p>hello"}, {200, ""}, {200, "null"}, {200, "[]"}, {200, `{"code":0,"data":null}`}, {200, `{"code":200,"data":[]}`},
			{404, `{"code":404,"message":"no route"}`}, {404, "not found"}, {502, "no upstream"}, {302, ""}, {403, "denied"}, {500, "no service here"},
		} {
			var lost atomic.Bool
			h := kind{"", major, nil, beats}.start(t).before(t, func(w http.ResponseWriter, _ *http.Request) bool {
				if lost.Load() {
					w.WriteHeader(answer.code)
					_, _ = w.Write([]byte(answer.body))
				}
				return lost.Load()
			})
			h.Register(t)
			r := h.plugIn(t)
			find(t, r)
			lost.Store(true)
			for range 2 {
				if gone, err := r.Withdrawn(t.Context()); gone || err == nil {
					t.Errorf("Nacos %d, %d %q: withdrawn %v, %v; want an error", major, answer.code, answer.body, gone, err)
				}
			}
			if _, err := r.Find(t.Context()); err == nil || errors.As(err, new(*drain.NotFoundError)) {
				t.Errorf("Nacos %d, %d %q: Find: %v; want an error that is no NotFoundError", major, answer.code, answer.body, err)
			}
			lost.Store(false)
			do(t, "Withdraw", r.Withdraw)
			if !isWithdrawn(t, r) || h.Listed(t) {
				t.Errorf("Nacos %d, %d %q: not withdrawn when the server is back", major, answer.code, answer.body)
			}
		}
	}
}

// A user who may not use the admin API of v3 is told so, and does not log in
// again with every call.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, withUsers, grpc}.start(t)
	h.before(t, func(w http.ResponseWriter, r *http.Request) bool {
		refused := strings.HasPrefix(r.URL.Path, "/nacos/v3/admin/")
		if refused {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"code":10001,"message":"authorization failed!","data":null}`))
		}
		return refused
	})
	h.Register(t)
	r := h.plugIn(t)
	before := h.f.loggedIn()
	for range 5 {
		for name, call := range map[string]func(context.Context) error{
			"Withdraw": r.Withdraw, "Restore": r.Restore, "Deregister": r.Deregister,
			"Find": func(ctx context.Context) error { _, err := r.Find(ctx); return err },
		} {
			if err := call(t.Context()); err == nil || !strings.Contains(err.Error(), "needs the right to read and write the namespace") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if isWithdrawn(t, r) {
			t.Error("withdrawn")
		}
	}
	if n := h.f.loggedIn() - before; n != 1 {
		t.Errorf("%d logins", n)
	}
}

// A token that ends between two requests of one call is renewed.
func TestTokenEndsInADrain(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		client := grpc
		if major == 1 {
			client = persistent
		}
		h := kind{"", major, withUsers, client}.start(t)
		var requests atomic.Int32
		h.before(t, func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/auth/") && requests.Add(1)%4 == 0 {
				h.f.mu.Lock()
				clear(h.f.tokens)
				h.f.ahead += 6 * time.Second
				h.f.mu.Unlock()
			}
			return false
		})
		h.Register(t)
		r := h.plugIn(t)
		find(t, r)
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) {
			t.Errorf("Nacos %d: not withdrawn", major)
		}
		h.token = ""
		if h.Listed(t) {
			t.Errorf("Nacos %d: it is listed", major)
		}
		do(t, "Restore", r.Restore)
		if h.token = ""; !h.Listed(t) {
			t.Errorf("Nacos %d: it is not listed after Restore", major)
		}
	}
}

// A server that was started anew and has lost all knows of no withdrawal: what
// the app registers then is withdrawn again. A sidecar that has never seen the
// instance does not take that for a withdrawal.
func TestServerLosesAll(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		r := h.plugIn(t)
		find(t, r)
		do(t, "Withdraw", r.Withdraw)
		lost := maps.Clone(h.f.instances)
		h.f.mu.Lock()
		clear(h.f.instances)
		clear(h.f.operator)
		clear(h.f.services)
		h.f.mu.Unlock()
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || !r.Located() {
			t.Errorf("located %v", r.Located())
		}
		if anew := h.plugIn(t); !isWithdrawn(t, anew) || anew.Located() {
			t.Errorf("a sidecar that has never seen it: located %v", anew.Located())
		} else if _, err := anew.Find(t.Context()); !errors.As(err, new(*drain.NotFoundError)) {
			t.Errorf("a sidecar that has never seen it: Find: %v", err)
		}
		h.f.mu.Lock()
		for _, i := range lost { // the app's client registers anew
			i.enabled = true
			h.f.putLocked(i)
		}
		h.f.mu.Unlock()
		if isWithdrawn(t, r) {
			t.Fatal("withdrawn, although it is registered anew")
		}
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) {
			t.Error("not withdrawn again")
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) {
			t.Error("it is not listed after Restore")
		}
	})
}

// An app that registers two ports is withdrawn at both, where both are known, and
// the other is named where it is not.
func TestTwoPorts(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		second := *h
		second.pod.AppPort = 9090
		second.starts = 0
		if second.client == grpc {
			i := second.registration()
			h.connection.register(i)
		} else {
			second.Register(t)
		}
		if text := find(t, h.plugIn(t)); !strings.Contains(text, ":9090 of ") || !strings.Contains(text, "LASTCALL_APP_PORT") {
			t.Errorf("Find says %q", text)
		}
		h.pod.AppPorts = []int{8080, 9090}
		r := h.plugIn(t)
		find(t, r)
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) || second.Listed(t) {
			t.Errorf("listed: %v and %v", h.Listed(t), second.Listed(t))
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) || !second.Listed(t) {
			t.Errorf("after Restore, listed: %v and %v", h.Listed(t), second.Listed(t))
		}
	})
}

// A pod with several addresses is registered under one of them, in any notation:
// servers compare addresses as texts. A sidecar that starts anew finds what the
// one before has disabled.
func TestAddresses(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		for _, as := range []string{"10.7.7.7", "fd00::7", "fd00:0:0:0:0:0:0:7", "[fd00::7]", "[fd00:0:0:0:0:0:0:7]"} {
			own := *h
			own.pod.IP, own.starts, own.connection = as, 0, nil
			own.Register(t)
			configured := own
			configured.pod.IP, configured.pod.IPs = "10.7.7.7", []string{"10.7.7.7", "fd00:0::7"}
			r := configured.plugIn(t)
			find(t, r)
			do(t, "Withdraw", r.Withdraw)
			if !isWithdrawn(t, r) || own.Listed(t) {
				t.Errorf("%s: it is listed", as)
			}
			do(t, "Restore in a new process", configured.plugIn(t).Restore)
			if !own.Listed(t) {
				t.Errorf("%s: it is not listed after Restore", as)
			}
			do(t, "Withdraw", r.Withdraw)
			do(t, "Deregister", r.Deregister)
			if own.connection != nil {
				own.connection.close()
			}
			if own.Known(t) {
				t.Errorf("%s: it is left behind", as)
			}
		}
	})
}

// A withdrawal that hung at one server, was made at another, and is carried out
// long after Restore, is undone by Find.
func TestWithdrawalThatIsVeryLate(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, nil, beats}.start(t)
		h.Register(t)
		var late atomic.Pointer[http.Request]
		hangs := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPatch || strings.HasSuffix(r.URL.Path, "/partial") {
				late.Store(r.Clone(context.Background()))
				<-r.Context().Done()
				return
			}
			h.f.ServeHTTP(w, r)
		}))
		h.cfg.URLs = []string{hangs, h.url}
		r := h.plugIn(t)
		find(t, r)
		r.servers[0].limit = 50 * time.Millisecond
		do(t, "Withdraw", r.Withdraw)
		if h.Listed(t) {
			t.Fatalf("Nacos %d: it is listed", major)
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) {
			t.Fatalf("Nacos %d: it is not listed after Restore", major)
		}
		h.f.ServeHTTP(discard{}, late.Load())
		if h.Listed(t) {
			t.Fatal("the late change has had no effect")
		}
		find(t, r)
		if !h.Listed(t) {
			t.Errorf("Nacos %d: the late withdrawal is still there", major)
		}
		// Later on, whatever is disabled is somebody's will.
		h.f.advance(14 * time.Second)
		for range 4 {
			h.Heartbeat(t)
			h.f.advance(14 * time.Second)
		}
		h.Heartbeat(t)
		h.operate(false)
		if text := find(t, r); h.Listed(t) || !strings.Contains(text, "somebody has disabled") {
			t.Errorf("Nacos %d: listed %v, Find says %q", major, h.Listed(t), text)
		}
	}
}

// The lists of a large service are not read with every look.
func TestLargeLists(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	for n := range 3000 {
		other := h.registration()
		other.ip, other.metadata = fmt.Sprintf("10.200.%d.%d", n/250, n%250), nil
		h.connection.register(other)
	}
	var lists atomic.Int32
	h.before(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/instance/list") {
			lists.Add(1)
		}
		return false
	})
	r := h.plugIn(t)
	find(t, r)
	do(t, "Withdraw", r.Withdraw)
	lists.Store(0)
	for range 20 {
		if !isWithdrawn(t, r) {
			t.Fatal("not withdrawn")
		}
	}
	if n := lists.Load(); n != 1 {
		t.Errorf("%d lists were read in a moment", n)
	}
	h.f.advance(6 * time.Second)
	if !isWithdrawn(t, r) || lists.Load() != 2 {
		t.Errorf("%d lists were read in 6 s", lists.Load())
	}
	do(t, "Restore", r.Restore)
	if isWithdrawn(t, r) {
		t.Error("withdrawn after Restore")
	}
}
