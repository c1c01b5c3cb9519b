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

// leaving lets an app's clients leave while its pod drains, and tells Lastcall
// how many requests the app works on. Wrap what does the app's work in it, and
// leave out what is asked by probes and scrapers.
type leaving struct {
	next     http.Handler
	draining string // LASTCALL_DRAINING_FILE; empty: clients are told nothing
	inFlight string // LASTCALL_FILE_PATH; empty: nothing is written

	mu    sync.Mutex
	count int
}

// newLeaving wraps next. It takes the two paths from the environment, by the
// names under which the sidecar has them.
func newLeaving(next http.Handler) (http.Handler, error) {
	l := &leaving{next: next, draining: os.Getenv("LASTCALL_DRAINING_FILE"), inFlight: os.Getenv("LASTCALL_FILE_PATH")}
	// Zero is said too: without the file the number is not known.
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
		// The request is in flight until all of its answer is on its way. That
		// matters in a drain only, and costs answers their Content-Length.
		answer.Flush()
	}
}

// isDraining is a system call of a microsecond or two, so it is asked each time.
func (l *leaving) isDraining() bool {
	if l.draining == "" {
		return false
	}
	_, err := os.Stat(l.draining)
	return err == nil
}

// farewell asks the client to leave after an answer that begins in a drain.
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
	if code >= http.StatusOK { // 1xx come before the answer
		f.begin()
	}
	f.ResponseWriter.WriteHeader(code)
}

func (f *farewell) Write(p []byte) (int, error) {
	f.begin()
	return f.ResponseWriter.Write(p)
}

// Flush is for http.Flusher.
func (f *farewell) Flush() {
	if f.hijacked {
		return
	}
	f.begin()
	_ = http.NewResponseController(f.ResponseWriter).Flush() // fails when the client has gone
}

// Hijack is for http.Hijacker, such as WebSockets.
func (f *farewell) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(f.ResponseWriter).Hijack()
	f.hijacked = err == nil
	return conn, buffered, err
}

// Unwrap is for all else that http.ResponseController does.
func (f *farewell) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (l *leaving) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count += n
	if err := l.write(); err != nil {
		slog.Error("cannot tell Lastcall what is in flight", "error", err) // the next change mends it
	}
}

// write replaces the file whole: a reader sees the old number or the new one.
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
