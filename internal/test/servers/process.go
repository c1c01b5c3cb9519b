package servers

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take for one step: Java servers are slow on a
// busy machine.
const patience = 2 * time.Minute

// Process is a server with all its processes: a master and its workers, or a single
// process.
type Process struct {
	name   string
	cmd    *exec.Cmd
	log    *logEnd
	exited chan struct{}
}

// startProcess starts a program that stays in the foreground, in its own process
// group. It is stopped at the end of the test, and its log is shown if the test has
// failed. If the test's process dies, the program gets the signal parentDeath; for
// a master it must be a signal that also ends its workers.
func startProcess(t testing.TB, parentDeath syscall.Signal, program string, args ...string) *Process {
	t.Helper()
	p := &Process{name: program, log: &logEnd{}, exited: make(chan struct{})}
	p.cmd = exec.Command(Need(t, program), args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: parentDeath}
	started := make(chan error)
	go func() {
		// Linux sends parentDeath when the thread that started the program ends, so
		// this thread is kept until the program has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // it was usually killed
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the log of %s ends with:\n%s", program, p.log)
		}
	})
	return p
}

// StartProgram starts a program that stays in the foreground, with env added to the
// test's own environment. It is stopped at the end of the test.
func StartProgram(t testing.TB, env []string, program string, args ...string) *Process {
	t.Helper()
	return startProcess(t, syscall.SIGKILL, "env", append(append(env, Need(t, program)), args...)...)
}

// Wait waits until ready returns no error. The test fails if the program ends
// first.
func (p *Process) Wait(t testing.TB, ready func() error) {
	t.Helper()
	if err := p.wait(ready); err != nil {
		t.Fatalf("%s: %v\n%s", p.name, err, p.log)
	}
}

// Signal sends s to the first process, which is the master if there are workers.
func (p *Process) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("sending %v to %s: %v", s, p.name, err)
	}
}

// Kill ends all processes at once, as the end of their container would.
func (p *Process) Kill() {
	_ = p.all(syscall.SIGKILL) // they may have ended already
	<-p.exited
}

// Freeze stops all processes until Thaw: the kernel accepts connections, and
// nothing answers.
func (p *Process) Freeze(t testing.TB) {
	t.Helper()
	if err := p.all(syscall.SIGSTOP); err != nil {
		t.Fatalf("freezing %s: %v", p.name, err)
	}
}

// Thaw ends Freeze.
func (p *Process) Thaw(t testing.TB) {
	t.Helper()
	if err := p.all(syscall.SIGCONT); err != nil {
		t.Fatalf("thawing %s: %v", p.name, err)
	}
}

func (p *Process) all(s syscall.Signal) error { return syscall.Kill(-p.cmd.Process.Pid, s) }

// WaitExit waits until the first process has ended.
func (p *Process) WaitExit(t testing.TB) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-p.exited:
	case <-deadline.C:
		t.Fatalf("%s has not ended after %v", p.name, patience)
	}
}

var errExited = errors.New("it has ended")

// wait waits until ready returns no error.
func (p *Process) wait(ready func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("%w; before that: %w", errExited, err)
		case <-deadline.C:
			return fmt.Errorf("after %v: %w", patience, err)
		}
	}
}

// logged returns how often text occurs in the part of the log that is kept.
func (p *Process) logged(text string) int { return strings.Count(p.log.String(), text) }

// waitLogged waits until the log contains text more than before times.
func (p *Process) waitLogged(t testing.TB, text string, before int) {
	t.Helper()
	err := p.wait(func() error {
		if p.logged(text) <= before {
			return fmt.Errorf("its log has no new %q", text)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}
