package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/freeport"
	"lastcall/internal/test/sidecar"
	"lastcall/internal/test/wait"
)

const (
	drained = `{"outcome": "drained"}`
	expired = `{"outcome": "expired", "waiting_for": "waiting for 3 requests: tcp 3"}`
)

// record is a COMMAND that exits with code 7.
func record() []string {
	return []string{"sh", "-c", `echo "$@"; echo problem >&2; : > "$RAN"; exit 7`, "sh", "a b", "-c"}
}

func TestHook(t *testing.T) {
	for name, c := range map[string]struct {
		steps []step
		flags []string
		alone int    // exit code without a COMMAND
		says  string // expected on standard error
		calls int32  // minimum number of calls
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
			// Flags after a misspelt one are not parsed, so the port is in the
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

// The real sidecar is killed in the middle of a drain, and restarted.
func TestHookOutlivesTheSidecar(t *testing.T) {
	t.Parallel()
	port := freeport.Port(t)
	environment := []string{fmt.Sprintf("LASTCALL_LISTEN=127.0.0.1:%d", port), "LASTCALL_GRACE_PERIOD=60s", "LASTCALL_ENDPOINTS_WAIT=30s", "LASTCALL_TOKEN=secret"}
	first := sidecar.Start(t, &program, environment...)
	h := newHook(t, port, []string{"-grace-period", "60s"}, record(), "LASTCALL_TOKEN=secret")
	ended := make(chan int, 1)
	go func() { ended <- h.run(t) }()
	first.Await(t, "the drain", func(s drain.Status) bool { return s.Phase == drain.Propagating })
	first.Signal(t, syscall.SIGKILL)
	<-first.Exited()
	wait.Until(t, "the hook to call again", func() bool { return strings.Contains(h.says(), "calling again") })
	environment[2] = "LASTCALL_ENDPOINTS_WAIT=100ms"
	second := sidecar.Start(t, &program, environment...)
	if code := <-ended; code != 7 || !h.ran() {
		t.Errorf("exit code %d, %s", code, h.says())
	}
	if !strings.Contains(second.Log(), `"outcome":"drained"`) {
		t.Error("the command has run, and the second sidecar has not drained the pod")
	}
}

// The hook finds a sidecar that starts later.
func TestHookBeforeTheSidecar(t *testing.T) {
	t.Parallel()
	port := freeport.Port(t)
	h := newHook(t, port, nil, record())
	ended := make(chan int, 1)
	go func() { ended <- h.run(t) }()
	wait.Until(t, "the hook to report that nothing listens", func() bool { return strings.Contains(h.says(), "connection refused") })
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

// A command that cannot be run fails as it does in a shell.
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

// Signals end the wait. The command gets them too, because it replaces the hook's
// process.
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
		_ = h.cmd.Wait() // its exit code is checked below
		if code := h.cmd.ProcessState.ExitCode(); code != 9 || !strings.Contains(h.says(), "by a signal") {
			t.Errorf("%v: exit code %d, %s", signal, code, h.says())
		}
	}
}
