package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"lastcall/drain"
	"lastcall/internal/freeport"
	"lastcall/internal/sidecartest"
	"lastcall/internal/wait"
)

const (
	drained = `{"outcome": "drained"}`
	expired = `{"outcome": "expired", "waiting_for": "waiting for 3 requests: tcp 3"}`
)

// fakeSidecar answers calls of /prestop one after the other, as steps say; the
// last one answers all that follow.
type fakeSidecar struct {
	port  int
	calls atomic.Int32
	// Of the last call.
	path, agent, token atomic.Value
}

// step answers one call, or lets it wait until its end.
type step func(w http.ResponseWriter, ended <-chan struct{})

func answering(code int, body string) step {
	return func(w http.ResponseWriter, _ <-chan struct{}) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

// breaksOff ends the connection without an answer, as a killed sidecar's kernel does.
func breaksOff(w http.ResponseWriter, _ <-chan struct{}) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// breaksOffInTheAnswer does so in the middle of the body.
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

// hook is a call of `lastcall hook` with a COMMAND that records that it ran.
type hook struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	errs lines
	file string // there once the command has run
}

// lines is standard error, which is read while the hook writes.
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

// run runs it to its end, and returns its exit code.
func (h *hook) run(t *testing.T) int {
	t.Helper()
	var exit *exec.ExitError
	if err := h.cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Error(err) // also called beside the test
		return -1
	}
	return h.cmd.ProcessState.ExitCode()
}

// says is what has been written to standard error so far.
func (h *hook) says() string {
	h.errs.mu.Lock()
	defer h.errs.mu.Unlock()
	return h.errs.written.String()
}

func (h *hook) ran() bool {
	_, err := os.Stat(h.file)
	return err == nil
}

// record is a COMMAND that ends with code 7.
func record() []string {
	return []string{"sh", "-c", `echo "$@"; echo problem >&2; : > "$RAN"; exit 7`, "sh", "a b", "-c"}
}

func TestHook(t *testing.T) {
	for name, c := range map[string]struct {
		steps []step
		flags []string
		alone int    // the exit code without a COMMAND
		says  string // on standard error
		calls int32  // at least
	}{
		"drained":                          {[]step{answering(200, drained)}, nil, 0, "", 1},
		"expired":                          {[]step{answering(504, expired)}, nil, 3, "not drained: expired, waiting for 3 requests", 1},
		"taken back":                       {[]step{answering(409, `{"outcome": "taken_back"}`)}, nil, 3, "not drained: taken_back", 1},
		"not found":                        {[]step{answering(424, `{"outcome": "instance_not_found", "reason": "never found in eureka"}`)}, nil, 3, "never found in eureka", 1},
		"breaks off, and is there again":   {[]step{breaksOff, breaksOff, answering(200, drained)}, nil, 0, "calling again", 3},
		"breaks off in the answer":         {[]step{breaksOffInTheAnswer, answering(200, drained)}, nil, 0, "broke off", 2},
		"the drain goes on":                {[]step{answering(503, `{"error": "it goes on"}`), answering(200, drained)}, nil, 0, "it goes on", 2},
		"an internal error":                {[]step{answering(500, `{"error": "see the log"}`), answering(200, drained)}, nil, 0, "see the log", 2},
		"no token":                         {[]step{answering(401, `{"error": "no token"}`)}, nil, 2, "LASTCALL_TOKEN", 1},
		"another token":                    {[]step{answering(403, `{"error": "another token"}`)}, nil, 2, "LASTCALL_TOKEN", 1},
		"the app's own port":               {[]step{answering(200, "hello")}, nil, 2, "is it the port of Lastcall's sidecar?", 1},
		"an app that has no such page":     {[]step{answering(404, "not found")}, nil, 2, "is it the port of Lastcall's sidecar?", 1},
		"a redirect":                       {[]step{answering(302, "")}, nil, 2, "is it the port of Lastcall's sidecar?", 1},
		"it never answers":                 {[]step{hangs}, []string{"-grace-period", "1200ms", "-reserve", "1s"}, 4, "no answer from the sidecar", 1},
		"it always breaks off":             {[]step{breaksOff}, []string{"-grace-period", "1500ms", "-reserve", "1s"}, 4, "no answer from the sidecar", 2},
		"an impossible grace period":       {[]step{answering(200, drained)}, []string{"-grace-period", "5s", "-reserve", "5s"}, 2, "leaves nothing to the drain", 1},
		"a misspelt flag, and the command": {[]step{answering(200, drained)}, []string{"-resreve", "5s"}, 2, "-resreve", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, 0, c.steps...)
			// A misspelt flag hides what is behind it, the port too: it is given in the
			// environment.
			port := "LASTCALL_PORT=" + fmt.Sprint(f.port)
			alone := newHook(t, f.port, c.flags, nil, port)
			if got := alone.run(t); got != c.alone || !strings.Contains(alone.says(), c.says) || c.says == "" && alone.says() != "" {
				t.Errorf("without a command: exit code %d, want %d; it says %q", got, c.alone, alone.says())
			}
			if got := f.calls.Load(); got < c.calls {
				t.Errorf("called %d times, want %d", got, c.calls)
			}
			f.calls.Store(0)
			with := newHook(t, f.port, c.flags, record(), port)
			if got := with.run(t); got != 7 || !with.ran() {
				t.Errorf("exit code %d, the command has run: %v; it says %q", got, with.ran(), with.says())
			}
			if out := with.out.String(); out != "a b -c\n" || !strings.HasSuffix(with.says(), "problem\n") {
				t.Errorf("the command's output was %q, and %q", out, with.says())
			}
			if got := f.path.Load(); got != "GET /prestop" || !strings.HasPrefix(f.agent.Load().(string), "lastcall-hook/") {
				t.Errorf("called %s as %s", got, f.agent.Load())
			}
		})
	}
}

// The real sidecar: killed in the middle of a drain, and started again.
func TestHookOutlivesTheSidecar(t *testing.T) {
	t.Parallel()
	port := freeport.Port(t)
	environment := []string{fmt.Sprintf("LASTCALL_LISTEN=127.0.0.1:%d", port), "LASTCALL_GRACE_PERIOD=60s", "LASTCALL_ENDPOINTS_WAIT=30s", "LASTCALL_TOKEN=secret"}
	first := sidecartest.Start(t, &program, environment...)
	h := newHook(t, port, []string{"-grace-period", "60s"}, record(), "LASTCALL_TOKEN=secret")
	ended := make(chan int, 1)
	go func() { ended <- h.run(t) }()
	first.Await(t, "the drain", func(s drain.Status) bool { return s.Phase == drain.Propagating })
	first.Signal(t, syscall.SIGKILL)
	<-first.Exited()
	wait.Until(t, "the hook to call again", func() bool { return strings.Contains(h.says(), "calling again") })
	environment[2] = "LASTCALL_ENDPOINTS_WAIT=100ms"
	second := sidecartest.Start(t, &program, environment...)
	if code := <-ended; code != 7 || !h.ran() {
		t.Errorf("exit code %d, %s", code, h.says())
	}
	if !strings.Contains(second.Log(), `"outcome":"drained"`) {
		t.Error("the command has run, and the second sidecar has not drained the pod")
	}
}

// A sidecar that starts after the hook was called is found.
func TestHookBeforeTheSidecar(t *testing.T) {
	t.Parallel()
	port := freeport.Port(t)
	h := newHook(t, port, nil, record())
	ended := make(chan int, 1)
	go func() { ended <- h.run(t) }()
	wait.Until(t, "the hook to say that nobody listens", func() bool { return strings.Contains(h.says(), "connection refused") })
	if h.ran() {
		t.Error("the command did not wait")
	}
	startFake(t, port, answering(200, drained))
	if code := <-ended; code != 7 {
		t.Errorf("exit code %d, %s", code, h.says())
	}
}

func TestHookToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFake(t, 0, answering(200, drained))
	for _, c := range []struct {
		flags []string
		env   string
		want  string
	}{
		{nil, "A=b", ""},
		{nil, "LASTCALL_TOKEN=variable", "Bearer variable"},
		{[]string{"-token", "flag"}, "LASTCALL_TOKEN=variable", "Bearer flag"},
		{[]string{"-token-file", file}, "LASTCALL_TOKEN=variable", "Bearer from a file"},
	} {
		h := newHook(t, f.port, c.flags, nil, c.env)
		if code := h.run(t); code != 0 || f.token.Load() != c.want {
			t.Errorf("%v, %s: exit code %d, sent %q, want %q", c.flags, c.env, code, f.token.Load(), c.want)
		}
	}
	h := newHook(t, f.port, []string{"-token-file", file + "s"}, record())
	if code := h.run(t); code != 7 || !strings.Contains(h.says(), "-token-file: open") {
		t.Errorf("exit code %d, %s", code, h.says())
	}
}

// A command that cannot be run fails as in a shell.
func TestHookCommandThatCannotBeRun(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFake(t, 0, answering(200, drained))
	for command, want := range map[string]int{"nginx-that-is-not-there": 127, "/nowhere/nginx": 127, plain: 126} {
		h := newHook(t, f.port, nil, []string{command})
		if code := h.run(t); code != want || !strings.Contains(h.says(), "cannot run") {
			t.Errorf("%s: exit code %d, want %d: %s", command, code, want, h.says())
		}
	}
}

// Signals end the wait, and reach the command: it has the hook's process.
func TestHookSignals(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		f := startFake(t, 0, hangs)
		h := newHook(t, f.port, nil, []string{"sh", "-c", `trap "exit 9" TERM; : > "$RAN"; while :; do sleep 0.01; done`})
		if err := h.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the call", func() bool { return f.calls.Load() == 1 })
		if h.ran() {
			t.Error("the command did not wait")
		}
		send := func(s syscall.Signal) {
			if err := h.cmd.Process.Signal(s); err != nil {
				t.Error(err)
			}
		}
		send(signal)
		wait.Until(t, "the command", h.ran)
		send(syscall.SIGTERM)
		_ = h.cmd.Wait() // its code is asked for
		if code := h.cmd.ProcessState.ExitCode(); code != 9 || !strings.Contains(h.says(), "by a signal") {
			t.Errorf("%v: exit code %d, %s", signal, code, h.says())
		}
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "there already")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for to, at := range map[string]string{
		dir:                       dir + "/lastcall",
		dir + "/":                 dir + "/lastcall",
		filepath.Join(dir, "new"): dir + "/new",
		file:                      file,
	} {
		for range 2 { // over what is there, too
			code, out, problems := run(t, nil, "install", to)
			if code != 0 || !strings.Contains(out, "installed "+at) {
				t.Fatalf("%s: exit code %d, %q, %q", to, code, out, problems)
			}
		}
		info, err := os.Stat(at)
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Fatalf("%s: %v, %v", at, info, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
		defer cancel()
		if out, err := exec.CommandContext(ctx, at, "version").CombinedOutput(); err != nil {
			t.Errorf("the copy does not run: %v, %s", err, out)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"install"}, 2, "usage: lastcall install PATH"},
		{[]string{"install", "a", "b"}, 2, "usage: lastcall install PATH"},
		{[]string{"install", "-help"}, 2, "usage: lastcall install PATH"},
		{[]string{"install", dir + "/nowhere/lastcall"}, 1, "mount a volume there"},
		{[]string{"install", dir + "/nowhere/"}, 1, "mount a volume there"},
		{[]string{"install", file + "/lastcall"}, 1, "not a directory"},
		{[]string{"install", "/proc/lastcall"}, 1, "/proc"},
	} {
		code, _, problems := run(t, nil, c.args...)
		if code != c.code || !strings.Contains(problems, c.says) {
			t.Errorf("%v: exit code %d, %q", c.args, code, problems)
		}
	}
	// A copy that runs is replaced.
	f := startFake(t, 0, hangs)
	h := newHook(t, f.port, nil, nil)
	h.cmd.Path = dir + "/lastcall"
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the call", func() bool { return f.calls.Load() == 1 })
	if code, _, problems := run(t, nil, "install", dir); code != 0 {
		t.Errorf("exit code %d while it runs: %s", code, problems)
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	_ = h.cmd.Wait() // its code is of no interest
}
