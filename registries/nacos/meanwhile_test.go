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

// A user without the right to use the admin API of v3 gets an error about it.
// The plug-in does not log in again with every call.
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

// A token that expires between two requests of one call is renewed.
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

// A server that was restarted and has lost all data knows of no withdrawal:
// what the app registers then is withdrawn again. A sidecar that has never seen
// the instance does not take its absence for a withdrawal.
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
		if next := h.plugIn(t); !isWithdrawn(t, next) || next.Located() {
			t.Errorf("a sidecar that has never seen it: located %v", next.Located())
		} else if _, err := next.Find(t.Context()); !errors.As(err, new(*drain.NotFoundError)) {
			t.Errorf("a sidecar that has never seen it: Find: %v", err)
		}
		h.f.mu.Lock()
		for _, i := range lost { // the app's client registers again
			i.enabled = true
			h.f.putLocked(i)
		}
		h.f.mu.Unlock()
		if isWithdrawn(t, r) {
			t.Fatal("withdrawn, although it is registered again")
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

// A withdrawal hung at one server and was made at another. The first server
// carries it out long after Restore. Find undoes it.
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
		// Later, an instance that is disabled counts as disabled by somebody
		// else.
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

// The lists of a large service are not read on every call.
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
