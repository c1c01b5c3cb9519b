// Package sidecar runs the program as its image does, for tests that use it from
// outside: as a kubelet, as an app, or as an operator.
package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// Program is the program, after it was built.
type Program struct {
	Path   string
	looked sync.Once
}

// Main builds the program for the tests of a package and runs them; the package's
// TestMain calls it. With -race the program is built with the race detector too,
// and exits with code 66 if the detector finds a race.
func Main(m *testing.M, program *Program) int { return buildAndRun(m, program, raceDetector) }

// MainAsShipped is Main, but even with -race it builds the program as the image has
// it, for tests that measure its resources.
func MainAsShipped(m *testing.M, program *Program) int { return buildAndRun(m, program, false) }

func buildAndRun(m *testing.M, program *Program, race bool) int {
	dir, err := os.MkdirTemp("", "lastcall")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }() // under the system's folder for temporary files
		program.Path = filepath.Join(dir, "lastcall")
		err = build(program.Path, race)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(program string, race bool) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "lastcall/cmd/lastcall"}
	cgo := "CGO_ENABLED=0"
	if race {
		args, cgo = []string{"build", "-race", "-buildvcs=false", "-o", program, "lastcall/cmd/lastcall"}, "CGO_ENABLED=1"
	}
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building lastcall: %w\n%s", err, out)
	}
	return nil
}

// Command returns a command that runs the program with exactly the environment env.
func (p *Program) Command(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	// go test must not reuse cached results after the program has changed.
	p.looked.Do(func() { servers.DependsOn(t, "lastcall/cmd/lastcall") })
	cmd := exec.CommandContext(context.Background(), p.Path, args...)
	cmd.Env = append([]string{"GORACE=halt_on_error=1 atexit_sleep_ms=0"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // ends it even if the test panics
	return cmd
}

// Sidecar is a running `lastcall serve`.
type Sidecar struct {
	URL string // of its HTTP server; known once it listens
	Pid int

	cmd    *exec.Cmd
	log    *buffer
	client *http.Client
	exited chan struct{}
}

// Start starts `lastcall serve` with exactly the environment env, and returns when
// it listens. It is killed at the end of the test, and its log is shown if the test
// has failed.
func Start(t testing.TB, program *Program, env ...string) *Sidecar {
	t.Helper()
	s := Launch(t, program, env...)
	s.URL = "http://" + s.waitListening(t)
	return s
}

// Launch is Start without waiting. LASTCALL_LISTEN is a free port of 127.0.0.1
// unless env sets it.
func Launch(t testing.TB, program *Program, env ...string) *Sidecar {
	t.Helper()
	s := &Sidecar{
		log:    &buffer{},
		exited: make(chan struct{}),
		// Like the kubelet's: one connection for each call, and no timeout.
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	s.cmd = program.Command(t, append([]string{"LASTCALL_LISTEN=127.0.0.1:0"}, env...), "serve")
	s.cmd.Stderr = s.log
	started := make(chan error)
	go func() {
		// Linux sends that signal when the thread that started the program ends, so
		// this thread is kept until the program has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // ExitCode reads the code
			close(s.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting lastcall: %v", err)
	}
	s.Pid = s.cmd.Process.Pid
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the log of lastcall:\n%s", s.Log())
		}
	})
	return s
}

// waitListening returns the address that the log contains.
func (s *Sidecar) waitListening(t testing.TB) (address string) {
	t.Helper()
	s.Eventually(t, "lastcall listening", func() error {
		for line := range strings.Lines(s.Log()) {
			var entry struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
				address = entry.Address
				return nil
			}
		}
		return errors.New("its log does not say so")
	})
	return address
}

// Log returns what the sidecar has logged so far.
func (s *Sidecar) Log() string { return s.log.String() }

// Eventually waits until ok returns no error. The test fails if the sidecar exits
// first.
func (s *Sidecar) Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline, tick := time.NewTimer(wait.Patience), time.NewTicker(5*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.exited:
			if err = ok(); err == nil {
				return
			}
			t.Fatalf("waiting for %s: lastcall has ended (%v); before that: %v", what, s.cmd.ProcessState, err)
		case <-deadline.C:
			t.Fatalf("waited %v for %s in vain: %v", wait.Patience, what, err)
		}
	}
}

// Answer is the answer to a call.
type Answer struct {
	Code int
	Body string
	Err  error
	At   time.Time // when it had arrived completely
}

// Report decodes the hook's answer.
func (a Answer) Report(t testing.TB) (r drain.Report) {
	t.Helper()
	if a.Err != nil {
		t.Fatalf("the hook failed: %v", a.Err)
	}
	if err := json.Unmarshal([]byte(a.Body), &r); err != nil {
		t.Fatalf("the hook was answered %d %s: %v", a.Code, a.Body, err)
	}
	return r
}

// Call makes one call. headers are pairs of names and values.
func (s *Sidecar) Call(ctx context.Context, method, path string, headers ...string) Answer {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, http.NoBody)
	if err != nil {
		return Answer{Err: err}
	}
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return Answer{Err: err, At: time.Now()}
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	return Answer{Code: resp.StatusCode, Body: string(body), Err: err, At: time.Now()}
}

// Want makes a call whose answer must have the status code.
func (s *Sidecar) Want(t testing.TB, code int, method, path string) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	a := s.Call(ctx, method, path)
	if a.Err != nil || a.Code != code {
		t.Fatalf("%s %s: %d %s %v, want %d", method, path, a.Code, a.Body, a.Err, code)
	}
	return a
}

// PreStop calls the hook as the kubelet does: without a timeout, until ctx ends.
func (s *Sidecar) PreStop(ctx context.Context) <-chan Answer {
	answered := make(chan Answer, 1)
	go func() {
		answered <- s.Call(ctx, http.MethodGet, "/prestop", "User-Agent", "kube-lifecycle/1.34", "Accept", "*/*", "Accept-Encoding", "gzip")
	}()
	return answered
}

// Wait returns the answer. The test fails if it does not come within limit.
func Wait(t testing.TB, answered <-chan Answer, limit time.Duration) Answer {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a
	case <-timer.C:
		t.Fatalf("no answer after %v", limit)
		return Answer{}
	}
}

// Status returns the current status.
func (s *Sidecar) Status(t testing.TB) (status drain.Status) {
	t.Helper()
	a := s.Want(t, http.StatusOK, http.MethodGet, "/status")
	if err := json.Unmarshal([]byte(a.Body), &status); err != nil {
		t.Fatalf("/status: %v in %s", err, a.Body)
	}
	return status
}

// Await waits until is returns true for the status.
func (s *Sidecar) Await(t testing.TB, what string, is func(drain.Status) bool) {
	t.Helper()
	s.Eventually(t, what, func() error {
		status := s.Status(t)
		if is(status) {
			return nil
		}
		text, _ := json.Marshal(status) // it was decoded from JSON
		return fmt.Errorf("the status is %s", text)
	})
}

// AwaitLog waits until the log contains text.
func (s *Sidecar) AwaitLog(t testing.TB, text string) {
	t.Helper()
	s.Eventually(t, fmt.Sprintf("%q in the log", text), func() error {
		if strings.Contains(s.Log(), text) {
			return nil
		}
		return errors.New("the log does not contain it")
	})
}

// Signal sends a signal to the sidecar.
func (s *Sidecar) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("sending %v to lastcall: %v", signal, err)
	}
}

// Stop kills the sidecar.
func (s *Sidecar) Stop() {
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.exited
}

// Exited returns a channel that is closed when the sidecar has ended.
func (s *Sidecar) Exited() <-chan struct{} { return s.exited }

// ExitCode waits until the sidecar has ended, and returns its exit code.
func (s *Sidecar) ExitCode(t testing.TB) int {
	t.Helper()
	timer := time.NewTimer(wait.Patience)
	defer timer.Stop()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode()
	case <-timer.C:
		t.Fatalf("lastcall has not ended after %v", wait.Patience)
		return -1
	}
}

// buffer keeps what is written to it.
type buffer struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.String()
}
