package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// goShare is the part of the container's memory that is Go's. The rest is for the
// program's own pages, the kernel's buffers and what Go does not count.
const goShare = 0.7

// limitMemory makes the garbage collector work harder when memory comes near to
// the limit of the container's cgroup, of version 1 or 2. GOMEMLIMIT, if set, goes
// before.
func limitMemory() {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	limit, err := memlimit.FromCgroup()
	if err != nil {
		level := slog.LevelInfo
		if errors.Is(err, memlimit.ErrNoLimit) || errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported) {
			level = slog.LevelDebug
		}
		slog.Log(context.Background(), level, "the memory limit of the container is not known; GOMEMLIMIT sets one for the garbage collector", "error", err)
		return
	}
	debug.SetMemoryLimit(int64(float64(limit) * goShare))
	slog.Debug("the garbage collector keeps to a share of the container's memory", "limit", limit, "share", goShare)
}
