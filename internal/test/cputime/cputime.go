//go:build linux

// Package cputime reads the CPU time of a process.
package cputime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Of returns the CPU time of all running threads of the process pid, in
// nanoseconds; /proc/PID/stat has hundredths of a second. Threads that have ended
// do not count.
func Of(t testing.TB, pid int) (total time.Duration) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads of process %d: %v", pid, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var nanoseconds int64
		if _, err := fmt.Sscan(string(text), &nanoseconds); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		total += time.Duration(nanoseconds)
	}
	return total
}
