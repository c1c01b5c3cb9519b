package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startLimit is how long a process may take until it listens.
const startLimit = 20 * time.Second

// process is a child process. None is left when the demo ends.
type process struct {
	name    string
	address string // where it listens: 127.0.0.1:PORT
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has ended

	mu  sync.Mutex
	log []string // the last lines of its log
}

// logLines is how many lines of a process's log are kept, to be shown if it fails.
const logLines = 10

// start starts a program, and returns when it listens: when a line of its JSON log
// says so and has the address.
func start(ctx context.Context, name string, command []string, env map[string]string) (*process, error) {
	p := &process{name: name, ended: make(chan struct{})}
	p.cmd = exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // this program; end and kill end it
	p.cmd.Env = environment(env)
	p.cmd.SysProcAttr = apart()
	log, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	serves := make(chan string, 1)
	go func() {
		p.read(log, serves)
		_ = p.cmd.Wait() // its result is read elsewhere
		close(p.ended)
	}()
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case p.address = <-serves:
		return p, nil
	case <-p.ended:
		err = fmt.Errorf("%s ended before it served: %s", name, p.lastWords())
	case <-limit.C:
		err = fmt.Errorf("%s does not serve after %v: %s", name, startLimit, p.lastWords())
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.kill()
	return nil, err
}

// environment returns the demo's environment with set added, without the variables
// of other sidecars.
func environment(set map[string]string) []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "LASTCALL_") {
			env = append(env, entry)
		}
	}
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	return env
}

func (p *process) read(log io.Reader, serves chan<- string) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		p.mu.Lock()
		p.log = append(p.log, lines.Text())
		p.log = p.log[max(0, len(p.log)-logLines):]
		p.mu.Unlock()
		var entry struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "serving" && entry.Address != "" {
			select {
			case serves <- entry.Address:
			default: // the address is already known
			}
		}
	}
	_, _ = io.Copy(io.Discard, log) // in case a line was too long
}

func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// end sends SIGTERM, and SIGKILL after grace, as the kubelet does. It reports
// whether the process ended by itself with the exit code 0.
func (p *process) end(ctx context.Context, grace time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	limit := time.NewTimer(grace)
	defer limit.Stop()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.Success()
	case <-limit.C:
	case <-ctx.Done():
	}
	p.kill()
	return false
}

// kill ends the process at once, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}
