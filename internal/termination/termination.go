// Package termination leaves the kubelet a message of how the pod has left. It
// becomes part of the container's status, where `kubectl describe pod` shows
// it and programs find it, and needs no permission.
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

// Path is the file that the kubelet reads when the container has ended, unless
// its terminationMessagePath says otherwise. The kubelet mounts it, for
// everybody to write; where there is no kubelet, there is no such file.
const Path = "/dev/termination-log"

// Limit is how much of it the kubelet takes, in bytes, from its end.
const Limit = 4096

// File is the termination message. It is a drain.Observer that writes a line
// for each thing that happens in a drain, at once: so the message is right
// however the process ends. A drain that begins replaces the one before.
type File struct {
	path string

	mu     sync.Mutex
	lines  []string
	stale  bool          // the file does not hold the lines
	idle   chan struct{} // closed when it does, or cannot; nil while nobody writes
	failed bool          // and the log says so
}

// New returns the message that is written to the file at path, if there is one.
func New(path string) *File { return &File{path: path} }

// Observe has e written. It does not block.
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

// Flush is for the end of the process: it returns when all is written, or when
// ctx ends.
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

// work writes until the file holds the lines.
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

// Write makes text the termination message in the file at path, cut to Limit
// bytes. It does nothing where there is no such file.
func Write(path, text string) error {
	if len(text) > Limit {
		text = strings.ToValidUTF8(text[:Limit], "")
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0) // the kubelet makes it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// In this order, it is never empty, should the process be killed.
	_, err = file.WriteString(text)
	return errors.Join(err, file.Truncate(int64(len(text))), file.Close())
}

// last returns as many of the last lines as have room.
func last(lines []string) []string {
	size := 0
	for i := len(lines) - 1; i >= 0; i-- {
		if size += len(lines[i]); size > Limit {
			return lines[i+1:]
		}
	}
	return lines
}

// oneLine is text on one line that leaves room for others.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) { // of a terminal
			return '?'
		}
		return r
	}, strings.Join(strings.Fields(text), " "))
	if len(text) > Limit/4 {
		text = text[:Limit/4] + "…"
	}
	return strings.ToValidUTF8(text, "")
}
