// Package file reads what is in flight from a file that the app keeps: one
// decimal number, or a folder of such files, one for each worker process.
//
// The app writes the number whenever it changes, from its start on and
// including 0. It lowers the number only after it has sent the answer. It
// writes a new file beside the old one and renames it (`.inflight.tmp` to
// `inflight`), or writes in place with a single write that ends in a newline.
//
// A writer that truncates the file and then writes (`echo 0 > inflight`), or
// that removes the file and creates it again, leaves a moment without a number.
// So a file that is empty or has gone missing is read repeatedly for a quarter
// of a second before it counts as unreadable. A number without a newline at its
// end may be the first part of a longer one. It is accepted once it has been
// read twice. One case cannot be detected: a writer that pauses for longer than
// that between two parts of a number without a newline. The other part is a
// change of its own, and the pod is not quiet before it has been read. A file
// that is rewritten with the same number has not changed.
//
// In a folder, each worker process has its own file and removes it when it
// exits. Names that begin with a dot, or end in `.tmp` or `~`, are not read, so
// that workers can write a file and rename it. A folder of more than 1,024
// names, including those that are not read, is an error. A folder without a
// file is an error as long as no file has been seen in it, because the app may
// be writing elsewhere. After that it means zero: the workers have ended, and
// their work with them. The file of a worker that crashed still counts, and
// holds the drain, until the app removes it. An app should clear the folder
// when it starts, and remove the file of a child process that has died.
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

	// busy holds a token during a reading. A file system that hangs blocks at
	// most one goroutine, and never the caller.
	busy *semaphore.Weighted
	seen bool // a file has been seen in the folder; guarded by busy
	was  bool // the path has existed; guarded by busy
}

// New returns a counter. It reads nothing yet.
func New(cfg Config) (*Counter, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("LASTCALL_FILE_PATH=%q: must be an absolute path, such as /lastcall/inflight", cfg.Path)
	}
	return &Counter{path: cfg.Path, sum: read, busy: semaphore.NewWeighted(1)}, nil
}

// errNoFiles is the error for a folder in which no worker has ever had a file.
var errNoFiles = errors.New("the folder holds no file yet: each worker process of the app writes one when it starts, 0 included")

// Count reads the file, or each file of the folder. It does not report
// arrivals. A file that is missing, empty or incomplete, or that holds anything
// but a number, is an error.
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
	if err := c.busy.Acquire(ctx, 1); err != nil {
		return 0, fmt.Errorf("an earlier reading has not ended, the file system hangs: %w", err)
	}
	type outcome struct {
		n   int64
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer c.busy.Release(1)
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

// A file that may be in the middle of a write is read again after a short
// pause, and later after longer pauses, for patience in total. A writer that
// never rests leaves it empty half of the time, so many attempts are needed.
const (
	shortPause = time.Millisecond
	longPause  = 5 * time.Millisecond
	shortFor   = 20 * time.Millisecond
	patience   = 250 * time.Millisecond
)

// settle reads the path until the content can be taken for what its writer
// intended.
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
