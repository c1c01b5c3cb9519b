// Package eurekaspring_test runs the example.
package eurekaspring_test

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
	servers.NeedEureka(t)
	for _, program := range []string{"bash", "curl"} {
		servers.Need(t, program)
	}
	servers.DependsOn(t, "lastcall/cmd/lastcall")
	noneFailed := regexp.MustCompile(`: [1-9]\d* requests, 0 failed\n`)
	for _, test := range []struct {
		mode  string
		fails bool
		want  []string // in this order
	}{
		{"with", false, []string{
			"pod-1 UP, pod-2 UP\n",
			"the kubelet calls its hook\n",
			"clients are told: pod-1 OUT_OF_SERVICE, pod-2 UP, pod-3 UP\n",
			"the hook returns: drained, in flight: 0\n",
			"the app is gone\n",
			"lastcall has ended with 0\n",
			"clients are told: pod-2 UP, pod-3 UP\n",
		}},
		{"without", true, []string{
			"it gets its SIGTERM\n",
			"clients are told: pod-2 UP, pod-3 UP\n",
		}},
	} {
		t.Run(test.mode, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, "./run", test.mode)
			run.Env = servers.GoEnv()
			run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
			said, err := run.CombinedOutput()
			if failed := err != nil; failed != test.fails || noneFailed.Match(said) == failed {
				t.Errorf("./run %s: %v\n%s", test.mode, err, said)
			}
			order := ""
			for _, want := range test.want {
				order += `(?s:.*)` + regexp.QuoteMeta(want)
			}
			if !regexp.MustCompile(order).Match(said) {
				t.Errorf("./run %s does not say, in this order, %q:\n%s", test.mode, test.want, said)
			}
		})
	}
}
