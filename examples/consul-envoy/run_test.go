// Package consulenvoy_test runs the example.
package consulenvoy_test

import (
	"context"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/servers"
)

func TestRun(t *testing.T) {
	for _, program := range []string{"consul", "envoy", "bash", "curl"} {
		servers.Need(t, program)
	}
	noneFailed := regexp.MustCompile(`: [1-9]\d* requests, 0 failed\n`)
	forgotten := regexp.MustCompile(`lastcall has ended with 0, and Consul has forgotten the pod\n`)
	for _, test := range []struct {
		name, mode string
		fails      bool
	}{{"with Lastcall", "with", false}, {"without", "without", true}} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, "./run", test.mode)
			run.Env = servers.GoEnv()
			run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
			said, err := run.CombinedOutput()
			if failed := err != nil; failed != test.fails || noneFailed.Match(said) == failed {
				t.Errorf("./run %s: %v\n%s", test.mode, err, said)
			}
			if got := len(forgotten.FindAll(said, -1)); !test.fails && got != 2 {
				t.Errorf("lastcall has deregistered %d pods, want 2:\n%s", got, said)
			}
		})
	}
}
