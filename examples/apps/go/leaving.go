package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// leaving asks an app's clients to disconnect while its pod drains, and reports to
// Lastcall how many requests the app is handling. Wrap the handler of the app's
// work in it, but not the endpoints of probes and scrapers.
type leaving struct {
	next     http.Handler
	draining string // LASTCALL_DRAINING_FILE; empty: clients are not asked
	inFlight string // LASTCALL_FILE_PATH; empty: no file is written

	mu    sync.Mutex
	count int
}

// newLeaving wraps next. It reads both paths from the environment variables that
// the sidecar uses.
func newLeaving(next http.Handler) (http.Handler, error) {
	l := &leaving{next: next, draining: os.Getenv("LASTCALL_DRAINING_FILE"), inFlight: os.Getenv("LASTCALL_FILE_PATH")}
	// Write zero too: without the file the number is unknown.
	if err := l.write(); err != nil {
		return nil, fmt.Errorf("LASTCALL_FILE_PATH: %w", err)
	}
	return l, nil
}

func (l *leaving) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.add(1)
	defer l.add(-1)
	answer := &farewell{ResponseWriter: w, draining: l.isDraining}
	l.next.ServeHTTP(answer, r)
	if l.isDraining() {
		// The request is in flight until its whole answer is on its way. This only
		// matters during a drain. Without the flush, answers keep their
		// Content-Length.
		answer.Flush()
	}
}

// isDraining makes a system call of a microsecond or two, so it can be called for
// each answer.
func (l *leaving) isDraining() bool {
	if l.draining == "" {
		return false
	}
	_, err := os.Stat(l.draining)
	return err == nil
}

// farewell adds Connection: close to an answer that begins during a drain.
type farewell struct {
	http.ResponseWriter
	draining func() bool
	begun    bool
	hijacked bool
}

func (f *farewell) begin() {
	if !f.begun && f.draining() {
		f.Header().Set("Connection", "close")
	}
	f.begun = true
}

func (f *farewell) WriteHeader(code int) {
	if code >= http.StatusOK { // 1xx come before the final answer
		f.begin()
	}
	f.ResponseWriter.WriteHeader(code)
}

func (f *farewell) Write(p []byte) (int, error) {
	f.begin()
	return f.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (f *farewell) Flush() {
	if f.hijacked {
		return
	}
	f.begin()
	_ = http.NewResponseController(f.ResponseWriter).Flush() // an error means that the client is gone
}

// Hijack implements http.Hijacker, for WebSockets and the like.
func (f *farewell) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(f.ResponseWriter).Hijack()
	f.hijacked = err == nil
	return conn, buffered, err
}

// Unwrap implements the interface that http.ResponseController needs.
func (f *farewell) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (l *leaving) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count += n
	if err := l.write(); err != nil {
		slog.Error("cannot report the requests in flight to Lastcall", "error", err) // the next change writes the file again
	}
}

// write replaces the file atomically: a reader sees either the old or the new
// number.
func (l *leaving) write() error {
	if l.inFlight == "" {
		return nil
	}
	next := filepath.Join(filepath.Dir(l.inFlight), "."+filepath.Base(l.inFlight)+".tmp")
	if err := os.WriteFile(next, []byte(strconv.Itoa(l.count)+"\n"), 0o644); err != nil { //nolint:gosec // the sidecar may be another user
		return err
	}
	return os.Rename(next, l.inFlight)
}
