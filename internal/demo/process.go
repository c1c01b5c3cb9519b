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

// startLimit is how long a process may take until it serves.
const startLimit = 20 * time.Second

// process is a child process, of which nothing is left when the demo ends.
type process struct {
	name    string
	address string // where it serves: 127.0.0.1:PORT
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has

	mu  sync.Mutex
	log []string // its last words
}

// logLines is how much of a process' log is kept, for when it fails.
const logLines = 10

// start starts a program, and returns when it serves: when a line of its log,
// in JSON, says so and where.
func start(ctx context.Context, name string, command []string, env map[string]string) (*process, error) {
	p := &process{name: name, ended: make(chan struct{})}
	p.cmd = exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // this very program; it is ended by end and kill
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
		_ = p.cmd.Wait() // how it ended is not asked, but that it did
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

// environment is that of the demo, without what is meant for another sidecar.
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
			default: // known already
			}
		}
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long
}

func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// end sends SIGTERM, and SIGKILL after grace, as the kubelet does. It tells
// whether the process ended by itself, and well.
func (p *process) end(ctx context.Context, grace time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
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
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}
