package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// Whatever way a handler uses to answer, the client gets Connection: close.
func TestEveryKindOfAnswer(t *testing.T) {
	dir := t.TempDir()
	draining := filepath.Join(dir, "draining")
	t.Setenv("LASTCALL_DRAINING_FILE", draining)
	t.Setenv("LASTCALL_FILE_PATH", filepath.Join(dir, "inflight"))
	mux := http.NewServeMux()
	mux.HandleFunc("/nothing", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "text") })
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "text")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		for range 2 {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "text")
		}
	})
	mux.HandleFunc("/begun", func(w http.ResponseWriter, _ *http.Request) {
		// The drain begins while the handler works.
		if err := os.WriteFile(draining, nil, 0o600); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "text")
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
		_ = conn.Close()
	})
	handler, err := newLeaving(mux)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(complaint{t}, "", 0)
	server.Start()
	ask := func(path string) (last bool) {
		t.Helper()
		response, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode >= http.StatusBadRequest {
			t.Errorf("%s: %s %v", path, response.Status, err)
		}
		return response.Close
	}
	paths := []string{"/nothing", "/status", "/text", "/early", "/stream"}
	for _, path := range paths {
		if ask(path) {
			t.Errorf("%s: Connection: close without a drain", path)
		}
	}
	for _, path := range append([]string{"/begun", "/hijack"}, paths...) {
		if !ask(path) {
			t.Errorf("%s: no Connection: close while the pod drains", path)
		}
	}
	server.Close()
	if text, err := os.ReadFile(filepath.Join(dir, "inflight")); string(text) != "0\n" {
		t.Errorf("in the end %q is in flight (%v)", text, err)
	}
}

// complaint makes the test fail for each line that the server logs.
type complaint struct{ testing.TB }

func (c complaint) Write(line []byte) (int, error) {
	c.Errorf("the server says: %s", line)
	return len(line), nil
}
