// Package drainfile tells an app, by a file on a volume that it shares with
// the sidecar, that a drain is under way.
package drainfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// File is a drain.Notice. The file exists while a drain is under way, and holds the
// time at which it was written (RFC 3339). Otherwise it does not exist.
type File struct{ path string }

// New returns the notice for the file at path. It does not touch the file yet.
func New(path string) (*File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("LASTCALL_DRAINING_FILE=%q: must be an absolute path on a volume that the app shares, such as /lastcall/draining", path)
	}
	return &File{path: filepath.Clean(path)}, nil
}

// Post creates the file. The file appears together with its text, so that the app
// never reads an empty one.
func (f *File) Post(context.Context) error {
	temporary, err := os.CreateTemp(filepath.Dir(f.path), ".draining-*")
	if err != nil {
		return f.failed("making", err)
	}
	_, err = fmt.Fprintln(temporary, time.Now().UTC().Format(time.RFC3339))
	err = errors.Join(err, temporary.Chmod(0o644), temporary.Close()) // for whatever user the app runs as
	if err == nil {
		err = os.Rename(temporary.Name(), f.path)
	}
	if err != nil {
		return f.failed("making", errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}

// Remove removes the file.
func (f *File) Remove(context.Context) error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.failed("removing", err)
	}
	return nil
}

func (f *File) failed(doing string, err error) error {
	return fmt.Errorf("%s LASTCALL_DRAINING_FILE; its folder must be a volume that the app shares, writable by this container's user (fsGroup): %w", doing, err)
}
