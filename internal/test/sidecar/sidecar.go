// Package sidecar runs the program itself, as its image does, for tests
// that look at it from outside: as a kubelet, as an app, as an operator.
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

// Program is the program, once it is built.
type Program struct {
	Path   string
	looked sync.Once
}

// Main builds the program for the tests of a package, whose TestMain it is, and
// runs them. With -race it has the race detector too, and ends with code 66
// when that finds a race.
func Main(m *testing.M, program *Program) int { return buildAndRun(m, program, raceDetector) }

// MainAsShipped is Main with the program as its image has it, also with -race:
// for tests of what it takes.
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

// Command returns a call of the program with the environment env and no other.
func (p *Program) Command(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	// The results of tests are not to be remembered when the program changes.
	p.looked.Do(func() { servers.DependsOn(t, "lastcall/cmd/lastcall") })
	cmd := exec.CommandContext(context.Background(), p.Path, args...)
	cmd.Env = append([]string{"GORACE=halt_on_error=1 atexit_sleep_ms=0"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics cleans nothing up
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

// Start starts `lastcall serve` with the environment env and no other, and
// returns once it listens. It is killed when the test ends; its log is shown
// then if the test has failed.
func Start(t testing.TB, program *Program, env ...string) *Sidecar {
	t.Helper()
	s := Launch(t, program, env...)
	s.URL = "http://" + s.waitListening(t)
	return s
}

// Launch is Start that waits for nothing. LASTCALL_LISTEN is a free port of
// 127.0.0.1 unless env says otherwise.
func Launch(t testing.TB, program *Program, env ...string) *Sidecar {
	t.Helper()
	s := &Sidecar{
		log:    &buffer{},
		exited: make(chan struct{}),
		// As the kubelet: a connection for each call, and no time-out.
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	s.cmd = program.Command(t, append([]string{"LASTCALL_LISTEN=127.0.0.1:0"}, env...), "serve")
	s.cmd.Stderr = s.log
	started := make(chan error)
	go func() {
		// Linux sends that signal when the thread ends that has started the
		// program, so that thread is kept until the program has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // its code is asked for
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

// waitListening returns the address that the log tells.
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

// Log is all that it has logged so far.
func (s *Sidecar) Log() string { return s.log.String() }

// Eventually waits until ok returns no error; that is also the end of it when
// the sidecar has exited.
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

// Answer is what a call was answered.
type Answer struct {
	Code int
	Body string
	Err  error
	At   time.Time // when all of it had arrived
}

// Report decodes the answer of a hook.
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

// Call makes one call. headers are names and values in turn.
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

// Want makes a call that is to be answered with code.
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

// PreStop calls the hook as the kubelet does: with no time-out, until ctx ends.
func (s *Sidecar) PreStop(ctx context.Context) <-chan Answer {
	answered := make(chan Answer, 1)
	go func() {
		answered <- s.Call(ctx, http.MethodGet, "/prestop", "User-Agent", "kube-lifecycle/1.34", "Accept", "*/*", "Accept-Encoding", "gzip")
	}()
	return answered
}

// Wait returns the answer, and fails when it does not come within limit.
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

// Status asks for the state now.
func (s *Sidecar) Status(t testing.TB) (status drain.Status) {
	t.Helper()
	a := s.Want(t, http.StatusOK, http.MethodGet, "/status")
	if err := json.Unmarshal([]byte(a.Body), &status); err != nil {
		t.Fatalf("/status: %v in %s", err, a.Body)
	}
	return status
}

// Await waits until the status is as is says.
func (s *Sidecar) Await(t testing.TB, what string, is func(drain.Status) bool) {
	t.Helper()
	s.Eventually(t, what, func() error {
		status := s.Status(t)
		if is(status) {
			return nil
		}
		text, _ := json.Marshal(status) // it was JSON a moment ago
		return fmt.Errorf("the status is %s", text)
	})
}

// AwaitLog waits until the log holds text.
func (s *Sidecar) AwaitLog(t testing.TB, text string) {
	t.Helper()
	s.Eventually(t, fmt.Sprintf("%q in the log", text), func() error {
		if strings.Contains(s.Log(), text) {
			return nil
		}
		return errors.New("it is not there")
	})
}

// Signal sends it a signal.
func (s *Sidecar) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("sending %v to lastcall: %v", signal, err)
	}
}

// Stop kills it.
func (s *Sidecar) Stop() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.exited
}

// Exited is closed when it has ended.
func (s *Sidecar) Exited() <-chan struct{} { return s.exited }

// ExitCode waits until it has ended, and returns its code.
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
