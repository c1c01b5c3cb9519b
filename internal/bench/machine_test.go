package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// provenance returns a text with the time, the commit and the machine of the
// measurement.
func provenance(b testing.TB) string {
	b.Helper()
	return fmt.Sprintf("Measured on %s at commit %s, on %s.\n", time.Now().UTC().Format(time.DateOnly), commit(b), machine(b))
}

// machine returns a description of this machine.
func machine(b testing.TB) string {
	b.Helper()
	model := "an unknown processor"
	cpus, err := os.Open("/proc/cpuinfo")
	if err != nil {
		b.Fatal(err)
	}
	defer cpus.Close()
	for lines := bufio.NewScanner(cpus); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		b.Fatal(err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s %s/%s; load average at the end: %s",
		runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		strings.Join(strings.Fields(string(load))[:3], " "))
}

// commit returns the measured commit.
func commit(b testing.TB) string {
	b.Helper()
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	text := strings.TrimSpace(string(out))
	// Ignore the files that this benchmark itself changes.
	if exec.Command("git", "diff", "--quiet", "HEAD", "--", ":/", ":!/docs", ":!/README.md").Run() != nil {
		text += " with changes"
	}
	return text
}

// ticks are the CPU time spent, in the kernel's ticks.
type ticks struct{ busy, all float64 }

// busy parses the first line of /proc/stat: user, nice, system, idle, iowait, irq,
// softirq, steal.
func busy(b testing.TB) (t ticks) {
	b.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	var spent [8]float64
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line)[1:9] {
		if _, err := fmt.Sscan(field, &spent[i]); err != nil {
			b.Fatal(err)
		}
		t.all += spent[i]
	}
	t.busy = t.all - spent[3] - spent[4]
	return t
}

// since returns the share of the CPU time that was busy since before.
func (t ticks) since(before ticks) float64 {
	return (t.busy - before.busy) / max(t.all-before.all, 1)
}
