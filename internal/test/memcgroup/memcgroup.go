// Package memcgroup runs a test's program with its container's memory limit, in a
// memory cgroup of version 1 or 2. It requires root.
package memcgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lastcall/internal/test/wait"
)

// files are the names of a cgroup's files, by version.
type files struct {
	limit, swap, peak, events string
	// Version 1 counts socket buffers separately, and only if they have a limit.
	// Version 2, which Kubernetes uses, counts them as memory.
	socketLimit, socketPeak string
	root                    string
}

func version1() files {
	return files{
		limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes", events: "memory.oom_control",
		socketLimit: "memory.kmem.tcp.limit_in_bytes", socketPeak: "memory.kmem.tcp.max_usage_in_bytes",
		root: "/sys/fs/cgroup/memory",
	}
}

func version2() files {
	return files{
		limit: "memory.max", swap: "memory.swap.max", peak: "memory.peak", events: "memory.events",
		root: "/sys/fs/cgroup",
	}
}

// Group is a memory cgroup.
type Group struct {
	dir string
	files
}

// New creates a cgroup with a limit in bytes. It is removed when the test ends, so
// programs in it must be started after New, and be stopped by the test's Cleanup.
// If the cgroup cannot be created, the test fails.
func New(t testing.TB, limit int64) *Group {
	t.Helper()
	g, err := create(fmt.Sprintf("lastcall-test-%d-%s", os.Getpid(), strings.Map(inName, t.Name())), limit)
	if err != nil {
		t.Fatalf("a memory cgroup cannot be made; it takes root, and /sys/fs/cgroup to be writable: %v", err)
	}
	t.Cleanup(func() {
		// The cgroup stays busy for a moment after its last process has ended.
		wait.For(t, "the cgroup to be empty", func() error { return os.Remove(g.dir) })
	})
	return g
}

func inName(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

func create(name string, limit int64) (*Group, error) {
	f := version2()
	if _, err := os.Stat(version1().root); err == nil {
		f = version1()
	} else if err := os.WriteFile(f.root+"/cgroup.subtree_control", []byte("+memory"), 0o600); err != nil {
		return nil, err
	}
	g := &Group{filepath.Join(f.root, name), f}
	if err := os.Mkdir(g.dir, 0o750); err != nil {
		return nil, err
	}
	err := os.WriteFile(filepath.Join(g.dir, f.limit), []byte(strconv.FormatInt(limit, 10)), 0o600)
	if err == nil && f.swap != "" {
		err = os.WriteFile(filepath.Join(g.dir, f.swap), []byte("0"), 0o600)
		if errors.Is(err, os.ErrNotExist) { // a kernel without swap
			err = nil
		}
	}
	if err == nil && f.socketLimit != "" {
		err = os.WriteFile(filepath.Join(g.dir, f.socketLimit), []byte(strconv.FormatInt(limit, 10)), 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(g.dir))
	}
	return g, nil
}

// Program returns the path of a program that runs the one at path in the cgroup.
func (g *Group) Program(t testing.TB, path string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "in-cgroup")
	text := fmt.Sprintf("#!/bin/sh\necho $$ >'%s/cgroup.procs' && exec '%s' \"$@\"\n", g.dir, path)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return script
}

// Kills returns how many processes the kernel has killed because the cgroup reached
// its memory limit.
func (g *Group) Kills(t testing.TB) int {
	t.Helper()
	for line := range strings.Lines(g.read(t, g.events)) {
		var n int
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("%s/%s does not say how many were killed", g.dir, g.events)
	return 0
}

// Peak returns the highest memory use, in bytes, including socket buffers.
func (g *Group) Peak(t testing.TB) int64 {
	t.Helper()
	peak := g.number(t, g.peak)
	if g.socketPeak != "" {
		peak += g.number(t, g.socketPeak) // an upper bound: the two peaks may have been at different times
	}
	return peak
}

func (g *Group) number(t testing.TB, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(g.read(t, name)), 10, 64)
	if err != nil {
		t.Fatalf("%s/%s: %v", g.dir, name, err)
	}
	return n
}

func (g *Group) read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
