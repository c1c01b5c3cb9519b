package system

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// fakeSidecar answers calls of /prestop in turn, one for each step. The last step
// also answers all further calls.
type fakeSidecar struct {
	port  int
	calls atomic.Int32
	// From the last call.
	path, agent, token atomic.Value
}

// step answers one call, or blocks until the sidecar ends.
type step func(w http.ResponseWriter, ended <-chan struct{})

func answering(code int, body string) step {
	return func(w http.ResponseWriter, _ <-chan struct{}) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

// breaksOff closes the connection without an answer, as the kernel does for a
// killed sidecar.
func breaksOff(w http.ResponseWriter, _ <-chan struct{}) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// breaksOffInTheAnswer closes the connection in the middle of the body.
func breaksOffInTheAnswer(w http.ResponseWriter, _ <-chan struct{}) {
	conn, out, err := http.NewResponseController(w).Hijack()
	if err == nil {
		fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n%s", drained)
		_ = out.Flush()
		_ = conn.Close()
	}
}

func hangs(_ http.ResponseWriter, ended <-chan struct{}) { <-ended }

func startFake(t *testing.T, port int, steps ...step) *fakeSidecar {
	t.Helper()
	f := &fakeSidecar{}
	ended := make(chan struct{})
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	f.port = l.Addr().(*net.TCPAddr).Port
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.path.Store(r.Method + " " + r.URL.String())
		f.agent.Store(r.UserAgent())
		f.token.Store(r.Header.Get("Authorization"))
		n := int(f.calls.Add(1))
		steps[min(n, len(steps))-1](w, ended)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { close(ended); _ = server.Close() })
	return f
}

// hook runs `lastcall hook` with a COMMAND that records that it has run.
type hook struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	errs lines
	file string // exists once the command has run
}

// lines holds standard error, which is read while the hook writes.
type lines struct {
	mu      sync.Mutex
	written bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.Write(p)
}

func newHook(t *testing.T, port int, flags, command []string, env ...string) *hook {
	t.Helper()
	args := append([]string{"hook", "-port", fmt.Sprint(port)}, flags...)
	h := &hook{file: filepath.Join(t.TempDir(), "ran")}
	if command != nil {
		args = append(append(args, "--"), command...)
	}
	h.cmd = program.Command(t, append([]string{"RAN=" + h.file, "PATH=" + os.Getenv("PATH")}, env...), args...)
	h.cmd.Stdout, h.cmd.Stderr = &h.out, &h.errs
	return h
}

// run runs the hook to its end, and returns its exit code.
func (h *hook) run(t *testing.T) int {
	t.Helper()
	var exit *exec.ExitError
	if err := h.cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Error(err) // not Fatal: also called in other goroutines
		return -1
	}
	return h.cmd.ProcessState.ExitCode()
}

// says returns what has been written to standard error so far.
func (h *hook) says() string {
	h.errs.mu.Lock()
	defer h.errs.mu.Unlock()
	return h.errs.written.String()
}

func (h *hook) ran() bool {
	_, err := os.Stat(h.file)
	return err == nil
}
