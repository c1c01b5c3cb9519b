// Package file reads what is in flight from a file that the app keeps: one
// decimal number, or a folder of such files, one for each worker process.
//
// The app writes the number from its start on, 0 included, whenever it
// changes, and lowers it only once the answer is sent. It writes a new file
// beside the old one and renames it (`.inflight.tmp` to `inflight`), or writes
// in place with one write that ends in a new line.
//
// A writer that truncates the file and then writes (`echo 0 > inflight`), or
// removes it and creates it again, leaves a moment in which there is no number. An
// empty file, and one that has gone missing, is therefore read again for a
// quarter of a second before it counts as unreadable. A number that does not end
// in a new line may be the first half of a longer one: it is taken once it has
// been read twice. What cannot be seen is a writer that stops for longer than
// that between two halves of a number without a new line; the other half is a
// change of its own, and the pod is not quiet before it has been read. A file
// that is rewritten with the same number has not changed.
//
// In a folder, each worker process has a file of its own and removes it when it
// exits. Names that begin with a dot, or end in `.tmp` or `~`, are not read, so
// that workers can rename. A folder of more than 1,024 names, those that are not
// read included, is an error. A folder without a file is an error as long as none
// has been seen, because the app may be writing elsewhere; later it is zero:
// the workers have ended and taken their work with them. The file of a worker
// that crashed goes on counting, and holds the drain, until the app removes it:
// an app should clear the folder when it starts, and remove the file of a child
// that it has seen die.
package file

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/semaphore"

	"lastcall/drain"
)

// Config is the counter's part of the environment.
type Config struct {
	Path string `envconfig:"LASTCALL_FILE_PATH" default:"/lastcall/inflight" desc:"a file holding one decimal number, or a folder of such files whose numbers are added (one per worker process)"`
}

// Counter is a drain.Counter and a drain.Notifier.
type Counter struct {
	path string
	sum  func(path string) (sum, error)

	// turn holds a token while a reading is under way. A file system that
	// hangs keeps one goroutine at most, and never the caller.
	turn *semaphore.Weighted
	seen bool // the folder has held a file; guarded by turn
	was  bool // the path has led to something; guarded by turn
}

// New makes the counter, and touches nothing yet.
func New(cfg Config) (*Counter, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("LASTCALL_FILE_PATH=%q: must be an absolute path, such as /lastcall/inflight", cfg.Path)
	}
	return &Counter{path: cfg.Path, sum: read, turn: semaphore.NewWeighted(1)}, nil
}

// errNoFiles is what a folder says in which no worker has ever had a file.
var errNoFiles = errors.New("the folder holds no file yet: each worker process of the app writes one when it starts, 0 included")

// Count reads the file, or each file of the folder. It cannot tell arrivals.
// What is missing, empty, half-written or anything but a number is an error.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	n, err := c.count(ctx)
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading what is in flight from %s: %w", c.path, err)
	}
	return drain.Reading{InFlight: n}, nil
}

func (c *Counter) count(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := c.turn.Acquire(ctx, 1); err != nil {
		return 0, fmt.Errorf("an earlier reading has not ended, the file system hangs: %w", err)
	}
	type outcome struct {
		n   int64
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer c.turn.Release(1)
		s, err := c.settle(ctx)
		c.was = c.was || err == nil
		if s.folder {
			c.seen = c.seen || s.files > 0
			if err == nil && !c.seen {
				err = errNoFiles
			}
		}
		done <- outcome{s.inFlight, err}
	}()
	select {
	case o := <-done:
		return o.n, o.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// A file that may be in the middle of being written is read again after a short
// pause, and after longer ones later, for patience in all. A writer that never
// rests leaves it empty half of the time, so it takes many looks.
const (
	shortPause = time.Millisecond
	longPause  = 5 * time.Millisecond
	shortFor   = 20 * time.Millisecond
	patience   = 250 * time.Millisecond
)

// settle reads the path until what it says can be taken for what its writer
// meant.
func (c *Counter) settle(ctx context.Context) (sum, error) {
	s, err := c.sum(c.path)
	pause := shortPause
	for waited := time.Duration(0); !s.settled(err, c.was) && waited < patience; waited += pause {
		if waited >= shortFor {
			pause = longPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return sum{}, ctx.Err()
		}
		before := s
		s, err = c.sum(c.path)
		if err == nil && s == before {
			break
		}
	}
	return s, err
}
