package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Limits of what is read. A 64-bit number has at most 19 digits.
const (
	maxBytes = 64   // in a file
	maxNames = 1024 // in a folder, including those that are not read
)

// errEmpty is the error for a file between its truncation and the next write.
var errEmpty = errors.New("it is empty: it must hold one decimal number, such as 0")

// sum is the result of reading all files of one path.
type sum struct {
	inFlight int64
	folder   bool // the path is a folder
	files    int  // how many were seen in the folder
	open     bool // a number is not followed by white space: more digits may follow
}

// settled reports whether the path need not be read again: the result is not
// what a file shows while it is being written. missing is true if a path that
// does not exist may be in the middle of a write.
func (s sum) settled(err error, missing bool) bool {
	switch {
	case errors.Is(err, errEmpty):
		return false
	case errors.Is(err, fs.ErrNotExist):
		return !missing
	}
	return err != nil || !s.open
}

// read reads the file at path, or the folder of files.
func read(path string) (sum, error) {
	f, info, err := open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return sum{}, fmt.Errorf("%w: the app writes it from its start on, into a volume that both containers mount", syscall.ENOENT)
	}
	if err != nil {
		return sum{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	if info.IsDir() {
		return readFolder(f)
	}
	n, ended, err := readNumber(f, info)
	return sum{inFlight: n, open: !ended}, err
}

// open opens a file without blocking, even if it is a FIFO without a writer, or
// a device.
func open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // only read
		return nil, nil, err
	}
	return f, info, nil
}

// readFolder adds up the files of a folder.
//
// Some file systems omit a file that is replaced at the moment of listing. The
// replacement is a change of its own, so another reading follows long before
// the pod has been quiet for LASTCALL_QUIET.
func readFolder(dir *os.File) (sum, error) {
	names, err := dir.Readdirnames(maxNames + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return sum{}, err
	}
	if len(names) > maxNames {
		return sum{}, fmt.Errorf("the folder holds more than %d files, which is the most that are read: there should be one for each worker process, "+
			"and none of workers that have ended; LASTCALL_FILE_PATH names the folder", maxNames)
	}
	slices.Sort(names) // so that the same mistake is reported each time
	s := sum{folder: true}
	for _, name := range names {
		if ignored(name) {
			continue
		}
		n, ended, err := readFile(filepath.Join(dir.Name(), name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // its worker has removed it since the listing
		case err != nil:
			return sum{folder: true, files: s.files}, fmt.Errorf("file %q: %w", name, err)
		case n > math.MaxInt64-s.inFlight:
			return sum{folder: true, files: s.files}, fmt.Errorf("file %q holds %d: the sum of all files must not be above %d", name, n, int64(math.MaxInt64))
		}
		s.inFlight += n
		s.files++
		s.open = s.open || !ended
	}
	return s, nil
}

// ignored reports whether a file has a name under which it is written before it
// is renamed.
func ignored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, "~")
}

func readFile(path string) (n int64, ended bool, err error) {
	f, info, err := open(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close() //nolint:errcheck // only read
	return readNumber(f, info)
}

// readNumber reads a file's number, and whether white space follows it: then no
// more digits can follow.
func readNumber(f io.Reader, info fs.FileInfo) (n int64, ended bool, err error) {
	if !info.Mode().IsRegular() {
		return 0, false, fmt.Errorf("it is no regular file (%s): it must be one that holds a decimal number", info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return 0, false, err
	}
	if len(text) > maxBytes {
		return 0, false, fmt.Errorf("it holds more than %d bytes, beginning with %.32q: it must hold one decimal number", maxBytes, text)
	}
	n, err = parse(text)
	return n, len(bytes.TrimRight(text, " \t\r\n")) < len(text), err
}

// parse reads one decimal number of 0 or more, with white space around it.
func parse(text []byte) (int64, error) {
	digits := bytes.TrimSpace(text)
	if len(digits) == 0 {
		return 0, errEmpty
	}
	// ParseUint accepts no sign and, with an explicit base, no underscore.
	n, err := strconv.ParseUint(string(digits), 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("it holds %.32q: the number must not be above %d", text, int64(math.MaxInt64))
	}
	if err != nil {
		return 0, fmt.Errorf("it holds %.32q: it must hold one decimal number of 0 or more, such as 12", text)
	}
	return int64(n), nil
}
