package nacos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that is down is left out at once. A server that hangs is left out
// once it has been silent for so long that its clients have left it. Both only
// if another server answers.
func TestBrokenServers(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, nil, beats}.start(t)
		h.Register(t)
		h.cfg.URLs = []string{dead, hanging(t), h.url}
		r := h.impatient(t)
		do(t, "Withdraw", r.Withdraw)
		if h.Listed(t) {
			t.Fatal("Withdraw has succeeded, but a client gets the instance")
		}
		if gone, err := r.Withdrawn(t.Context()); gone || err == nil || !strings.Contains(err.Error(), "no answer within") {
			t.Errorf("at first: %v, %v; want an error that names the server that hangs", gone, err)
		} else if strings.Contains(err.Error(), dead) {
			t.Errorf("the error names the server that is down: %v", err)
		}
		h.f.advance(14 * time.Second)
		h.Heartbeat(t)
		h.f.advance(14 * time.Second)
		h.Heartbeat(t)
		if gone, err := r.Withdrawn(t.Context()); gone || err == nil {
			t.Errorf("after 28 s: %v, %v; want an error", gone, err)
		}
		h.f.advance(3 * time.Second)
		if !isWithdrawn(t, r) {
			t.Error("after 31 s: it is not withdrawn")
		}
		// If no server answers, nothing is known.
		h.cfg.URLs = []string{dead, r.servers[1].url}
		r = h.impatient(t)
		if gone, err := r.Withdrawn(t.Context()); gone || err == nil {
			t.Errorf("without a server that answers: %v, %v", gone, err)
		}
		h.f.advance(31 * time.Second)
		if gone, err := r.Withdrawn(t.Context()); gone || err == nil {
			t.Errorf("without a server that answers, for long: %v, %v", gone, err)
		}
	}
}

// impatient returns a plug-in with short timeouts for all servers except the
// good one.
func (h *harness) impatient(t *testing.T) *Registry {
	t.Helper()
	r := h.plugIn(t)
	for _, s := range r.servers {
		if s.url != h.url && s.url != dead { // a busy machine takes longer to refuse a connection
			s.limit, s.silentLimit = 50*time.Millisecond, 20*time.Millisecond
		}
	}
	return r
}

// Once a server has answered again, its earlier silence does not count any
// more.
func TestSilenceEnds(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	var hangs atomic.Bool
	flaky := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-r.Context().Done()
			return
		}
		h.f.ServeHTTP(w, r)
	}))
	h.cfg.URLs = []string{flaky, h.url}
	r := h.plugIn(t)
	do(t, "Withdraw", r.Withdraw)
	for range 3 {
		hangs.Store(true)
		r.servers[0].limit = 50 * time.Millisecond
		if gone, err := r.Withdrawn(t.Context()); gone {
			t.Errorf("withdrawn, while a server has just begun to hang: %v", err)
		}
		hangs.Store(false)
		r.servers[0].limit = requestLimit
		h.f.advance(20 * time.Second)
		if !isWithdrawn(t, r) {
			t.Error("not withdrawn, while all answer")
		}
	}
}

// A call that was cut off because servers hang is continued by the next one.
func TestProgressIsKept(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	h.cfg.URLs = []string{hanging(t), hanging(t), hanging(t), h.url}
	r := h.plugIn(t)
	if limit := r.CallLimit(); limit < time.Duration(len(r.servers))*requestLimit+5*requestLimit || limit > 2*time.Minute {
		t.Errorf("a call may take %v", limit)
	}
	for _, s := range r.servers[:3] {
		s.limit = time.Hour
	}
	for range 3 { // each call detects one of them
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := r.Withdraw(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Withdraw: %v", err)
		}
		cancel()
	}
	do(t, "Withdraw", r.Withdraw)
	if h.Listed(t) {
		t.Error("it is listed")
	}
}

// A server that does not know the instance yet does not decide: the server that
// lists it is asked to withdraw it.
func TestServerThatDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	h.cfg.URLs = []string{serve(t, newFake(3, nil)), h.url}
	r := h.plugIn(t)
	for tries := 0; !isWithdrawn(t, r); tries++ {
		if tries > 3 {
			t.Fatal("it is never withdrawn")
		}
		do(t, "Withdraw", r.Withdraw)
	}
	if h.Listed(t) {
		t.Error("it is listed")
	}
	do(t, "Restore", r.Restore)
	if !h.Listed(t) {
		t.Error("it is not listed after Restore")
	}
}

// Servers are upgraded while the sidecar runs.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	h := kind{"", 1, nil, beats}.start(t)
	h.Register(t)
	r := h.plugIn(t)
	for _, major := range []int{1, 2, 3, 2, 1} {
		h.f.mu.Lock()
		h.f.major = major
		h.f.mu.Unlock()
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) {
			t.Errorf("Nacos %d: it is listed", major)
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) {
			t.Errorf("Nacos %d: it is not listed after Restore", major)
		}
		if v, _ := r.servers[0].known(); int(v) > major || major == 3 && v != v3 {
			t.Errorf("Nacos %d: spoken to by %v", major, v)
		}
	}
}

// A change that got no answer may have taken effect: Restore undoes it.
func TestChangeWithoutAnswer(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, nil, beats}.start(t)
		h.Register(t)
		ctx, cancel := context.WithCancel(t.Context())
		h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ctx.Err() == nil && (r.Method == http.MethodPatch || strings.HasSuffix(r.URL.Path, "/partial")) {
				h.f.ServeHTTP(discard{}, r)
				cancel()
				<-r.Context().Done()
				return
			}
			h.f.ServeHTTP(w, r)
		}))}
		r := h.plugIn(t)
		if err := r.Withdraw(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Withdraw: %v", err)
		}
		if h.Listed(t) {
			t.Fatal("the change has not taken effect")
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) {
			t.Errorf("Nacos %d: it is not in service after Restore", major)
		}
		cancel()
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// A change that arrives late, while it is being undone, is undone nevertheless.
func TestChangeThatIsLate(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, nil, beats}.start(t)
		h.Register(t)
		ctx, cancel := context.WithCancel(t.Context())
		var late atomic.Pointer[http.Request]
		h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ctx.Err() == nil && (r.Method == http.MethodPatch || strings.HasSuffix(r.URL.Path, "/partial")) {
				late.Store(r.Clone(context.Background()))
				cancel()
				<-r.Context().Done()
				return
			}
			h.f.ServeHTTP(w, r)
			// The last request of Restore reads the instance, or the list of
			// it.
			if held := late.Load(); held != nil && (major == 3 || strings.HasSuffix(r.URL.Path, "/list")) && late.CompareAndSwap(held, nil) {
				h.f.ServeHTTP(discard{}, held)
			}
		}))}
		r := h.plugIn(t)
		if err := r.Withdraw(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Withdraw: %v", err)
		}
		do(t, "Restore", r.Restore)
		if late.Load() != nil || !h.Listed(t) {
			t.Errorf("Nacos %d: it is not in service after Restore", major)
		}
		cancel()
	}
}

// A server that gives no useful answer, but may serve others, is never left
// out.
func TestServersThatMayServeOthers(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	tls := httptest.NewTLSServer(h.f)
	defer tls.Close()
	tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for name, url := range map[string]string{
		"not trusted": tls.URL + "/nacos",
		"closes":      serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })),
		"fails":       serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })),
		"starting":    serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })),
	} {
		h.cfg.URLs = []string{url, h.url}
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		for range 2 {
			if gone, err := r.Withdrawn(t.Context()); gone || err == nil || !strings.HasPrefix(err.Error(), url) {
				t.Errorf("%s: %v, %v", name, gone, err)
			}
			h.f.advance(31 * time.Second)
		}
	}
}

// Clients ignore a disabled instance in a list, so a list with only that does
// not list the pod.
func TestListWithDisabledInstances(t *testing.T) {
	t.Parallel()
	h := newHarness(nil, "", beats)
	h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/nacos/v1/") {
			fmt.Fprintf(w, `{"hosts":[{"ip":%q,"port":8080,"enabled":false}]}`, h.pod.IP)
			return
		}
		http.NotFound(w, r)
	}))}
	if !isWithdrawn(t, h.plugIn(t)) {
		t.Error("not withdrawn")
	}
}
