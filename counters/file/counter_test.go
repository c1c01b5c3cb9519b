package file

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewWantsAnAbsolutePath(t *testing.T) {
	for _, path := range []string{"", "inflight", "./lastcall/inflight"} {
		_, err := New(Config{Path: path})
		if err == nil || !strings.Contains(err.Error(), "LASTCALL_FILE_PATH="+strconv.Quote(path)) {
			t.Errorf("New with path %q: got %v, want an error that names the variable and its value", path, err)
		}
	}
}

func TestNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inflight")
	c := counter(t, path)
	for _, test := range []struct {
		holds string
		want  int64
	}{
		{"0", 0},
		{"12", 12},
		{" \t12\r\n\n", 12},
		{"0000000012\n", 12},
		{"9223372036854775807", math.MaxInt64},
		{strings.Repeat(" ", 63) + "7", 7},
	} {
		must(t, os.WriteFile(path, []byte(test.holds), 0o600))
		if n := inFlight(t, c); n != test.want {
			t.Errorf("%q: got %d, want %d", test.holds, n, test.want)
		}
	}
}

func TestNoNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inflight")
	c := counter(t, path)
	for _, test := range []struct{ holds, says string }{
		{"", "it is empty"},
		{" \n", "it is empty"},
		{"-1", `"-1": it must hold one decimal number of 0 or more`},
		{"+1", `"+1"`},
		{"1.0", `"1.0"`},
		{"1e3", `"1e3"`},
		{"1_000", `"1_000"`},
		{"0x10", `"0x10"`},
		{"1 2", `"1 2"`},
		// Written in place over "100\n" without truncating.
		{"9\n0\n", `"9\n0\n"`},
		// Written at an earlier writer's offset after the file was truncated.
		{"\x00\x00\x001", `"\x00\x00\x001"`},
		{"\xff\xfe1\x00", `"\xff\xfe1\x00"`},
		{"٣", `"٣"`},
		{"9223372036854775808", "must not be above 9223372036854775807"},
		{strings.Repeat("9", 60), "must not be above"},
		{strings.Repeat("1", 65), "more than 64 bytes"},
		{strings.Repeat(" ", 64) + "7", "more than 64 bytes"},
	} {
		must(t, os.WriteFile(path, []byte(test.holds), 0o600))
		refuses(t, c, path, test.says)
	}
}

func TestMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume", "inflight")
	err := refuses(t, counter(t, path), path, "the app writes it from its start on")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that is fs.ErrNotExist", err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	c := counter(t, dir)
	refuses(t, c, dir, "holds no file yet")

	put := func(name, holds string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(holds), 0o600)) }
	put(".worker-1.tmp", "100")
	put("worker-1.tmp", "100")
	put("worker-1~", "")
	must(t, os.Mkdir(filepath.Join(dir, ".cache"), 0o700))
	refuses(t, c, dir, "holds no file yet")

	put("worker-1", "3")
	put("worker-2", "4\n")
	must(t, os.Symlink("worker-2", filepath.Join(dir, "worker-3")))
	if n := inFlight(t, c); n != 11 {
		t.Fatalf("in flight %d, want 11", n)
	}
	// A broken link counts as a worker that has ended.
	must(t, os.Remove(filepath.Join(dir, "worker-2")))
	if n := inFlight(t, c); n != 3 {
		t.Fatalf("in flight %d, want 3", n)
	}
	put("worker-2", "")
	refuses(t, c, dir, `file "worker-2": it is empty`)
	put("worker-2", strconv.Itoa(math.MaxInt64))
	refuses(t, c, dir, `file "worker-2" holds 9223372036854775807: the sum of all files`)
	must(t, os.Remove(filepath.Join(dir, "worker-2")))
	must(t, os.Mkdir(filepath.Join(dir, "worker-2"), 0o700))
	refuses(t, c, dir, `file "worker-2": it is no regular file (drwx------)`)
}

func TestEmptyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "inflight")
	must(t, os.Mkdir(dir, 0o700))
	c := counter(t, dir)
	refuses(t, c, dir, "holds no file yet")
	worker := filepath.Join(dir, "worker")
	// A file counts as seen even if the folder is unreadable.
	must(t, os.WriteFile(worker, []byte("1"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "x"), []byte("?"), 0o600))
	refuses(t, c, dir, `file "x"`)
	must(t, os.Remove(worker))
	must(t, os.Remove(filepath.Join(dir, "x")))
	if n := inFlight(t, c); n != 0 {
		t.Fatalf("in flight %d after the workers have left, want 0", n)
	}
	// The workers must not remove the folder itself.
	must(t, os.Remove(dir))
	refuses(t, c, dir, "no such file")
}

// If an empty folder replaces a file, that does not mean that workers have
// ended.
func TestFolderInTheFilesPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inflight")
	must(t, os.WriteFile(path, []byte("1"), 0o600))
	c := counter(t, path)
	if n := inFlight(t, c); n != 1 {
		t.Fatalf("in flight %d, want 1", n)
	}
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	refuses(t, c, path, "holds no file yet")
}

func TestFolderIsBounded(t *testing.T) {
	dir := t.TempDir()
	c := counter(t, dir)
	for i := range maxNames {
		must(t, os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("1"), 0o600))
	}
	if n := inFlight(t, c); n != maxNames {
		t.Fatalf("in flight %d, want %d", n, maxNames)
	}
	must(t, os.WriteFile(filepath.Join(dir, ".one-more"), nil, 0o600))
	refuses(t, c, dir, "more than 1024 files")
}

// A file that is not regular must not block, and must not be read.
func TestNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	refuses(t, counter(t, fifo), fifo, "it is no regular file (prw-------)")

	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	refuses(t, counter(t, socket), socket, "no such device or address")

	refuses(t, counter(t, "/dev/zero"), "/dev/zero", "it is no regular file (Dcrw")
	refuses(t, counter(t, dir), dir, `file "fifo": it is no regular file`)
}

func TestPermissionDenied(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "inflight")
	must(t, os.WriteFile(path, []byte("0"), 0o000))
	done := make(chan error)
	go func() {
		// Root may read anything, unless its thread has another user id for
		// file access. The thread ends with this goroutine.
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := unix.Setfsuid(65534); err != nil {
				done <- err
				return
			}
		}
		_, err := read(path)
		done <- err
	}()
	if err := <-done; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want an error that is fs.ErrPermission and names the file", err)
	}
}

// A file system that hangs does not block the caller, and blocks at most one
// goroutine.
func TestHangingFileSystem(t *testing.T) {
	c := counter(t, "/lastcall/inflight")
	hang, readings := make(chan struct{}), 0
	c.sum = func(string) (sum, error) {
		readings++
		<-hang
		return sum{inFlight: 5, files: 1}, nil
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 1)
		if _, err := c.Count(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want an error that is context.DeadlineExceeded", err)
		}
		cancel()
	}
	close(hang)
	if n := inFlight(t, c); n != 5 {
		t.Fatalf("in flight %d once the file system answers, want 5", n)
	}
	if readings > 2 {
		t.Fatalf("%d readings were begun beside the one that hung", readings-1)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0", "12\n", " 7 ", "-1", "", "9223372036854775808", "1\x002", "٣"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parse(text)
		if err != nil {
			if n != 0 || len(err.Error()) > 300 {
				t.Fatalf("%q: got %d and an error of %d bytes: %v", text, n, len(err.Error()), err)
			}
			return
		}
		// A number consists of its digits and nothing else that is visible.
		digits := strings.TrimLeft(strings.TrimSpace(string(text)), "0")
		if digits == "" {
			digits = "0"
		}
		if strconv.FormatInt(n, 10) != digits {
			t.Fatalf("%q was read as %d", text, n)
		}
	})
}

func counter(t *testing.T, path string) *Counter {
	t.Helper()
	c, err := New(Config{Path: path})
	must(t, err)
	return c
}

func inFlight(t *testing.T, c *Counter) int64 {
	t.Helper()
	r, err := c.Count(t.Context())
	must(t, err)
	if r.HasArrived || r.Arrived != 0 {
		t.Fatalf("the counter tells arrivals: %+v", r)
	}
	return r.InFlight
}

// refuses checks that a reading fails with an error that names the path and
// contains says.
func refuses(t *testing.T, c *Counter, path, says string) error {
	t.Helper()
	r, err := c.Count(t.Context())
	if err == nil || r.InFlight != 0 {
		t.Fatalf("got %+v and %v, want an error that says %q", r, err, says)
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %q, want it to name %s and to say %q", err, path, says)
	}
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
