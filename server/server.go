// Package server is Lastcall's HTTP edge: the kubelet's hooks and probes, and
// the calls of people and of Prometheus. It knows the drainer, and nothing
// else.
package server

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"

	"lastcall/drain"
)

const (
	// headerLimit is how long a caller may take to send its request's header,
	// from when it has connected.
	headerLimit = 5 * time.Second
	// bodyLimit is how long it may take to send a body.
	bodyLimit = 5 * time.Second
	// headerBytes bounds a request's header. The server always reads up to 4
	// KiB more.
	headerBytes = 4 << 10
	// bodyBytes bounds how much of a body is read. No call takes a body.
	bodyBytes = 4 << 10
)

// Options are the edge's own settings.
type Options struct {
	Token    string // required for the hooks and /drain; none is required if it is empty
	AppReady string // URL of the app's own readiness; empty if it has none
	Version  string // reported by /metrics

	appReadyLimit time.Duration // how long AppReady may take to answer; 900 ms if 0
}

// Server serves a drainer's HTTP calls.
type Server struct {
	http    *http.Server
	kubelet func(netip.Addr) bool
}

// New returns the server of d's HTTP calls. It has no write timeout, because a
// hook blocks for as long as the drain takes. It has no read timeout beyond the
// header, because a timeout for the body would also end a blocked hook. Its
// connections limit both.
//
// A connection carries one request. The kubelet does not reuse a connection for
// another probe or hook, and whatever a caller sends after a request cannot be
// taken for another request.
func New(d *drain.Drainer, o Options) *Server {
	s := &http.Server{
		Handler:           Handler(d, o),
		ReadHeaderTimeout: headerLimit,
		MaxHeaderBytes:    headerBytes,
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		// The server's own answer to OPTIONS * would wait for a body without a
		// time limit.
		DisableGeneralOptionsHandler: true,
	}
	s.SetKeepAlivesEnabled(false)
	return &Server{http: s, kubelet: d.IsKubelet}
}

// Serve accepts connections from l, within the guard's limits, until Shutdown
// or Close. Then it returns [http.ErrServerClosed]. It must be called only
// once.
func (s *Server) Serve(l net.Listener) error {
	return s.http.Serve(newGuard(l, s.kubelet))
}

// Shutdown accepts no further connections, and waits until the calls under way
// are answered or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close closes all connections.
func (s *Server) Close() error { return s.http.Close() }

// Listen listens on address. Its connections have small buffers.
func Listen(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: bounded}
	return config.Listen(context.Background(), "tcp", address)
}

// Handler returns the handler of all of d's HTTP calls.
func Handler(d *drain.Drainer, o Options) http.Handler {
	state := &shared[[]byte]{produce: func(ctx context.Context) []byte { return encode(d.Status(ctx)) }}
	r := chi.NewRouter()
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "not found; endpoints are /prestop, /poststart, /drain, /readyz, /livez, /status and /metrics")
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			if routes := chi.RouteContext(r.Context()).Routes; routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
				w.Header().Add("Allow", method)
			}
		}
		fail(w, http.StatusMethodNotAllowed, r.URL.Path+" does not allow "+r.Method)
	})

	r.With(knowKubelet(d)).Get("/livez", livez)
	r.With(knowKubelet(d)).Get("/readyz", readyz(d, newAppProbe(o.AppReady, cmp.Or(o.appReadyLimit, appReadyLimit))))
	r.Get("/status", status(state))
	r.Get("/metrics", metrics(d, o.Version))
	r.Group(func(r chi.Router) {
		r.Use(authorized(o.Token), knowKubelet(d))
		r.Get("/prestop", preStop(d))
		r.Get("/poststart", postStart(d))
		r.Post("/drain", beginDrain(d, state))
		r.Delete("/drain", takeBack(d, state))
	})
	// These wrap the router, because the router copies requests: the original
	// would still hold what limited drops.
	return recovered(limited(r))
}

// recovered keeps a panic in one call from ending other calls or the process.
func recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				slog.Error("http: a call panicked, please report it", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				fail(w, http.StatusInternalServerError, "internal error, see the log")
			}
		}()
		next.ServeHTTP(w, r)
	})
}
