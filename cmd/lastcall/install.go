package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ownProgram is the running binary, even if its file was replaced meanwhile.
const ownProgram = "/proc/self/exe"

// install copies the running binary to the path that args name, and returns the
// exit code.
func install(args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		fmt.Fprint(stderr, "usage: lastcall install PATH\n\nCopies this program to PATH, a file or a folder, for `lastcall hook` in the app's container.\n")
		return exitBadInput
	}
	path, size, err := copyProgram(ownProgram, args[0])
	if err != nil {
		fmt.Fprintf(stderr, "lastcall install: %v%s\n", err, installHint(err))
		return exitFailed
	}
	fmt.Fprintf(stdout, "installed %s, %.1f MB\n", path, float64(size)/1e6)
	return exitOK
}

// copyProgram copies a program, and returns the path of the copy. It writes to a
// temporary file and renames that, so that the copy is complete when it appears,
// and replaces a program that is running.
func copyProgram(from, to string) (path string, size int64, err error) {
	path = filepath.Clean(to)
	if info, err := os.Stat(to); err == nil && info.IsDir() { //nolint:gosec // whoever deploys the pod names it
		path = filepath.Join(path, "lastcall")
	} else if strings.HasSuffix(to, "/") {
		return "", 0, fmt.Errorf("copying to the folder %s: %w", to, fs.ErrNotExist)
	}
	source, err := os.Open(from)
	if err != nil {
		return "", 0, fmt.Errorf("reading this program: %w", err)
	}
	defer func() { _ = source.Close() }() // it was only read
	target, err := os.CreateTemp(filepath.Dir(path), ".lastcall-*")
	if err != nil {
		return "", 0, fmt.Errorf("copying to %s: %w", path, err)
	}
	size, err = io.Copy(target, source)
	if err == nil {
		err = target.Chmod(0o755) // CreateTemp makes it for this user alone
	}
	err = errors.Join(err, target.Close())
	if err == nil {
		err = os.Rename(target.Name(), path) //nolint:gosec // the same
	}
	if err != nil {
		_ = os.Remove(target.Name()) //nolint:gosec // it was made above
		return "", 0, fmt.Errorf("copying to %s: %w", path, err)
	}
	return path, size, nil
}

// installHint says what can be done about an error.
func installHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ": there is no such folder: mount a volume there, such as an emptyDir that the app mounts too"
	case errors.Is(err, syscall.EROFS):
		return ": the container's root is read-only: mount a volume there, such as an emptyDir that the app mounts too"
	case errors.Is(err, fs.ErrPermission):
		return ": this container's user may not write there: an emptyDir is open to all, other volumes need fsGroup"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ": there is no room: an emptyDir's sizeLimit must leave 12 MB"
	}
	return ""
}
