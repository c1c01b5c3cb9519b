package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Timeouts. The API server waits 30 s at most.
const (
	headerTimeout = 5 * time.Second
	callTimeout   = 30 * time.Second
	stopTimeout   = 20 * time.Second
)

// Mux returns the handler for all paths of the server.
func (h *Handler) Mux() *http.ServeMux {
	mux := http.NewServeMux()
	if h.Parameters != nil {
		mux.Handle("/inject", h.Inject())
	}
	mux.Handle("/check", h.Check())
	if h.Gate != nil {
		mux.Handle("/gate", h.Gate)
	}
	if h.Metrics != nil {
		mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			h.Metrics(w)
		})
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.NotReady(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

// NotReady returns why the server is not ready for calls, or nil if it is ready.
func (h *Handler) NotReady() error {
	var err error
	if h.Parameters != nil {
		_, err = h.Parameters()
	}
	if err == nil && h.Ready != nil {
		err = h.Ready()
	}
	return err
}

// Certificates provides the certificate that is served. Certificate implements it.
type Certificates interface {
	Get(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Serve serves on l until ctx ends. It then waits up to 20 s for the calls that have
// begun.
func (h *Handler) Serve(ctx context.Context, l net.Listener, c Certificates) error {
	server := &http.Server{
		Handler:           h.Mux(),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       callTimeout,
		WriteTimeout:      callTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(l, "", "") }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := server.Shutdown(stop)
	if closed := <-ended; !errors.Is(closed, http.ErrServerClosed) {
		err = errors.Join(err, closed)
	}
	return err
}
