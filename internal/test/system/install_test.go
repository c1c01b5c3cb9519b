package system

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lastcall/internal/test/wait"
)

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
		for range 2 { // the second time, the file already exists
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
		if out, err := exec.CommandContext(ctx, at, "version").CombinedOutput(); err != nil {
			t.Errorf("the copy does not run: %v, %s", err, out)
		}
		cancel()
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
	// A copy that is running is replaced.
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
	_ = h.cmd.Wait() // its exit code does not matter
}
