package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// look is the result of one reading by a counter.
type look struct {
	sum
	err error
}

// A file that is being written is read again until it holds what was intended.
func TestWhatIsBeingWrittenIsReadAgain(t *testing.T) {
	number := func(n int64) look { return look{sum: sum{inFlight: n}} }
	half := func(n int64) look { return look{sum: sum{inFlight: n, open: true}} }
	empty := look{err: fmt.Errorf("file %q: %w", "x", errEmpty)}
	missing := look{err: fs.ErrNotExist}
	for name, test := range map[string]struct {
		looks []look // the last one repeats
		want  int64  // or unreadable
		err   error
		took  time.Duration
	}{
		"a whole number":                         {[]look{number(3)}, 3, nil, 0},
		"truncated":                              {[]look{empty, number(3)}, 3, nil, time.Millisecond},
		"truncated by a slow writer":             {[]look{empty, empty, empty, empty, empty, empty, empty, empty, number(3)}, 3, nil, 8 * time.Millisecond},
		"empty for good":                         {[]look{empty}, unreadable, errEmpty, patience},
		"the first digit of two":                 {[]look{half(1), number(12)}, 12, nil, time.Millisecond},
		"the first digit, and then no new line":  {[]look{half(1), half(12)}, 12, nil, 2 * time.Millisecond},
		"never a new line":                       {[]look{half(1)}, 1, nil, time.Millisecond},
		"truncated, the first digit, the second": {[]look{empty, half(0), number(7)}, 7, nil, 2 * time.Millisecond},
		"removed and created again":              {[]look{missing, empty, number(5)}, 5, nil, 2 * time.Millisecond},
		"removed for good":                       {[]look{missing}, unreadable, fs.ErrNotExist, patience},
		"garbage":                                {[]look{{err: errors.New("garbage")}}, unreadable, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := counter(t, "/lastcall/inflight")
				c.was = true
				c.sum = func(string) (sum, error) {
					now := test.looks[0]
					if len(test.looks) > 1 {
						test.looks = test.looks[1:]
					}
					return now.sum, now.err
				}
				began := time.Now()
				r, err := c.Count(t.Context())
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				switch {
				case test.want == unreadable && (err == nil || test.err != nil && !errors.Is(err, test.err)):
					t.Errorf("got %+v, %v, want the error %v", r, err, test.err)
				case test.want != unreadable && (err != nil || r.InFlight != test.want):
					t.Errorf("got %+v, %v, want %d", r, err, test.want)
				}
			})
		})
	}
}

// A path that has never existed is reported at once, and the end of the context
// ends the pauses.
func TestNoPauseForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counter(t, "/lastcall/inflight")
		said := fs.ErrNotExist
		c.sum = func(string) (sum, error) { return sum{}, said }
		began := time.Now()
		if _, err := c.Count(t.Context()); !errors.Is(err, fs.ErrNotExist) || time.Since(began) != 0 {
			t.Fatalf("got %v after %v, want %v at once", err, time.Since(began), fs.ErrNotExist)
		}
		said = errEmpty
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := c.Count(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 10*time.Millisecond {
			t.Fatalf("got %v after %v, want the deadline's error when it is over", err, time.Since(began))
		}
		synctest.Wait() // the reading has ended as well
		if !c.busy.TryAcquire(1) {
			t.Fatal("a reading goes on after its context")
		}
	})
}

// writers write a number repeatedly, in ways that are not atomic.
var writers = map[string]string{
	"truncates and writes":      `while :; do echo 7 > "$1"; sleep 0.02; done`,
	"ten times a second":        `while :; do echo 7 > "$1"; sleep 0.1; done`,
	"in a hurry":                `while :; do echo 7 > "$1"; sleep 0.001; done`,
	"no new line":               `while :; do printf 7 > "$1"; sleep 0.01; done`,
	"removes and creates again": `while :; do rm "$1"; echo 7 > "$1"; sleep 0.01; done`,
	"digit by digit":            `while :; do { printf 0; printf 0; printf 7; echo; } > "$1"; sleep 0.01; done`,
	"slowly":                    `while :; do { sleep 0.03; echo 7; } > "$1"; sleep 0.03; done`,
}

// A writer that is not atomic, and always writes the same number, changes
// nothing: each reading returns its number. If a busy machine stops the writer
// in the middle of a write, the file cannot be read. That is never zero.
func TestWriterThatIsNotAtomic(t *testing.T) {
	for name, script := range writers {
		for _, folder := range []bool{false, true} {
			if folder && name == "removes and creates again" {
				continue // in a folder, a missing file means a worker that has ended
			}
			t.Run(fmt.Sprintf("%s, folder %v", name, folder), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "inflight")
				file := path
				if folder {
					must(t, os.Mkdir(path, 0o700))
					file = filepath.Join(path, "worker-1")
				}
				must(t, os.WriteFile(file, []byte("7\n"), 0o600))
				c := counter(t, path)
				changed := c.Changed(t.Context())
				inFlight(t, c)
				repeat(t, script, file)
				unreadable := 0
				for range 40 {
					select {
					case <-changed:
					case <-time.After(20 * time.Second):
						t.Fatal("no change was told")
					}
					switch r, err := c.Count(t.Context()); {
					case err != nil:
						if unreadable++; unreadable > 10 {
							t.Fatal(err)
						}
					case r.InFlight != 7 && (name != "digit by digit" || r.InFlight != 0):
						t.Fatalf("got %+v", r)
					}
				}
			})
		}
	}
}

// repeat runs a script until the test ends.
func repeat(t *testing.T, script, argument string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", script, "writer", argument)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
}

// Two writers that truncate, in the same folder.
func TestWritersOfAFolderThatAreNotAtomic(t *testing.T) {
	dir := t.TempDir()
	c := counter(t, dir)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	for _, name := range []string{"worker-1", "worker-2"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("4\n"), 0o600))
		writing.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte("4\n"), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	defer writing.Wait()
	defer close(stop)
	unreadable := 0
	for range 200 {
		switch r, err := c.Count(t.Context()); {
		case err != nil: // a busy machine has stopped a writer in the middle of a write
			if unreadable++; unreadable > 50 {
				t.Fatal(err)
			}
		case r.InFlight != 8:
			t.Fatalf("got %+v, want 8", r)
		}
	}
}

func TestFolderErrorNamesTheVariableAndTheBound(t *testing.T) {
	dir := t.TempDir()
	for i := range maxNames + 1 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("0\n"), 0o600))
	}
	_, err := counter(t, dir).Count(t.Context())
	for _, want := range []string{"LASTCALL_FILE_PATH", "1024 files", dir} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}
