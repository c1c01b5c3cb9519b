// Package termination writes a termination message that says how the pod's drain
// went. The kubelet copies it to the container's status, where `kubectl describe
// pod` shows it and programs can read it. It needs no permissions.
package termination

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"lastcall/drain"
)

// Path is the file that the kubelet reads after the container has ended, unless its
// terminationMessagePath is set. The kubelet mounts it with write access for
// everyone. Without a kubelet the file does not exist.
const Path = "/dev/termination-log"

// Limit is how many bytes of the file the kubelet keeps. It keeps the last ones.
const Limit = 4096

// File is the termination message. It is a drain.Observer that writes a line for
// each event of a drain at once, so that the message is correct however the process
// ends. A new drain replaces the lines of the previous one.
type File struct {
	path string

	mu     sync.Mutex
	lines  []string
	stale  bool          // lines have changed since they were last written
	idle   chan struct{} // closed when all is written or has failed; nil while nothing is being written
	failed bool          // a failure was logged
}

// New returns the message that is written to the file at path, if the file exists.
func New(path string) *File { return &File{path: path} }

// Observe starts writing e. It does not block.
func (f *File) Observe(e drain.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Type == drain.EventDraining {
		f.lines = nil
	}
	f.lines = last(append(f.lines, fmt.Sprintf("%s %s: %s\n", e.At.UTC().Format(time.RFC3339), e.Type, oneLine(e.Text))))
	f.stale = true
	if f.idle == nil {
		f.idle = make(chan struct{})
		go f.work()
	}
}

// Flush is called at the end of the process. It returns when all lines are written,
// or when ctx ends.
func (f *File) Flush(ctx context.Context) {
	f.mu.Lock()
	idle := f.idle
	f.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// work writes until the file contains all lines.
func (f *File) work() {
	for {
		f.mu.Lock()
		if !f.stale {
			close(f.idle)
			f.idle = nil
			f.mu.Unlock()
			return
		}
		f.stale = false
		text := strings.Join(f.lines, "")
		f.mu.Unlock()

		if err := Write(f.path, text); err != nil && !f.failed {
			f.failed = true
			slog.Warn("the termination message cannot be written", "error", err)
		}
	}
}

// Write writes text to the file at path as the termination message, cut to Limit
// bytes. It does nothing if the file does not exist.
func Write(path, text string) error {
	if len(text) > Limit {
		text = strings.ToValidUTF8(text[:Limit], "")
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0) // the kubelet creates it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// In this order, the file is never empty, even if the process is killed.
	_, err = file.WriteString(text)
	return errors.Join(err, file.Truncate(int64(len(text))), file.Close())
}

// last returns as many of the last lines as fit into Limit.
func last(lines []string) []string {
	size := 0
	for i := len(lines) - 1; i >= 0; i-- {
		if size += len(lines[i]); size > Limit {
			return lines[i+1:]
		}
	}
	return lines
}

// oneLine returns text as a single line, short enough to leave room for others.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) { // these could control a terminal
			return '?'
		}
		return r
	}, strings.Join(strings.Fields(text), " "))
	if len(text) > Limit/4 {
		text = text[:Limit/4] + "…"
	}
	return strings.ToValidUTF8(text, "")
}
