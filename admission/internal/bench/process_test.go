package bench

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
)

// process is a running lastcall-admission, built as for its image.
type process struct {
	url    string
	cmd    *exec.Cmd
	client *http.Client
}

// build builds the program as for its image.
func build(b *testing.B, dir string) string {
	b.Helper()
	program := filepath.Join(dir, "lastcall-admission")
	cmd := exec.CommandContext(b.Context(), "go", "build", "-C", "../..", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/lastcall-admission")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("building it: %v\n%s", err, out)
	}
	return program
}

// launch starts `lastcall-admission serve` with these flags and waits until it is ready.
func launch(b *testing.B, program, dir string, flags ...string) *process {
	b.Helper()
	_, certificate, key := servers.WriteCertificates(b, dir, "admission")
	address := freeport.Address(b)
	p := &process{url: "https://" + address, client: servers.Client(b)}
	p.client.Transport = insecure()
	p.cmd = exec.CommandContext(b.Context(), program, append([]string{
		"serve", "-listen", address, "-linger", "0s", "-cert-file", certificate, "-key-file", key,
	}, flags...)...)
	var log strings.Builder
	p.cmd.Stdout, p.cmd.Stderr = &log, &log
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.stop)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for {
		if code, err := p.get("/readyz"); err == nil && code == http.StatusOK {
			return p
		}
		select {
		case <-tick.C:
		case <-late:
			p.stop()
			b.Fatalf("it is not ready\n%s", &log)
		}
	}
}

func (p *process) get(path string) (int, error) {
	resp, err := p.client.Get(p.url + path)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// stop kills the process, unless stop was called before.
func (p *process) stop() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // the process may have ended
		_ = p.cmd.Wait()         // the error says that it was killed
	}
}

// memory returns the value of a line in /proc/PID/status, in MB.
func (p *process) memory(b *testing.B, name string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, name+": %f kB", &kilobytes); err == nil {
			return kilobytes * 1024 / 1e6
		}
	}
	b.Fatalf("no %s in %s", name, text)
	return 0
}
