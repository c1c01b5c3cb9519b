package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"lastcall/internal/test/wait"
)

// Each step is done and reported before the next one. The number is read only
// after events.
func TestChangesAreTold(t *testing.T) {
	type step struct {
		what string
		do   func(t *testing.T, dir string)
		want int64 // or unreadable
	}
	// The steps use paths inside the test's own folder.
	write := func(name, holds string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(holds), 0o600))
		}
	}
	rename := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
		}
	}
	atomic := func(name, holds string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { t.Helper(); must(t, replace(filepath.Join(dir, name), holds)) }
	}
	mkdir := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { t.Helper(); must(t, os.Mkdir(filepath.Join(dir, name), 0o700)) }
	}
	link := func(to, name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { t.Helper(); must(t, os.Symlink(to, filepath.Join(dir, name))) }
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { t.Helper(); must(t, os.RemoveAll(filepath.Join(dir, name))) }
	}
	all := func(dos ...func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			for _, do := range dos {
				do(t, dir)
			}
		}
	}

	for _, test := range []struct {
		name  string
		path  string
		given func(*testing.T, string)
		steps []step
	}{
		{"a file written in place", "n", write("n", "1"), []step{
			{"written", write("n", "2"), 2},
			{"emptied", write("n", ""), unreadable},
			{"written after that", write("n", "3"), 3},
		}},
		{"a file replaced", "n", write("n", "1"), []step{
			{"replaced", atomic("n", "2"), 2},
			{"replaced again", atomic("n", "3"), 3},
			{"replaced by garbage", atomic("n", "?"), unreadable},
			{"mended", atomic("n", "0"), 0},
		}},
		{"a file removed and made again", "n", write("n", "1"), []step{
			{"removed", remove("n"), unreadable},
			{"made", write("n", "2"), 2},
			{"moved away", rename("n", "m"), unreadable},
			{"moved back", rename("m", "n"), 2},
		}},
		{"a file that comes later", "a/b/c/n", func(*testing.T, string) {}, []step{
			{"nearly made", all(mkdir("a"), mkdir("a/b"), mkdir("a/b/c"), write("a/b/c/n", "x")), unreadable},
			{"made", write("a/b/c/n", "1"), 1},
			{"written", write("a/b/c/n", "2"), 2},
		}},
		{"its directory replaced", "a/b/n", all(mkdir("a"), mkdir("a/b"), write("a/b/n", "1")), []step{
			{"another directory put there", all(mkdir("new"), write("new/n", "2"), rename("a/b", "old"), rename("new", "a/b")), 2},
			{"written in the new directory", write("a/b/n", "3"), 3},
			{"the old one put back", all(rename("a/b", "new"), rename("old", "a/b")), 1},
			{"written in the old directory", write("a/b/n", "4"), 4},
			{"everything removed", remove("a"), unreadable},
			{"everything made again", all(mkdir("a"), mkdir("a/b"), write("a/b/n", "5")), 5},
			{"written", atomic("a/b/n", "6"), 6},
		}},
		{"its directory moved away and back at once", "a/n", all(mkdir("a"), write("a/n", "1")), []step{
			{"moved", all(rename("a", "b"), rename("b", "a"), write("a/n", "2")), 2},
			{"written", write("a/n", "3"), 3},
		}},
		{"its directory moved, with a link in its place", "a/n", all(mkdir("a"), write("a/n", "1")), []step{
			{"moved", all(rename("a", "b"), link("b", "a"), write("b/n", "2")), 2},
			{"written by the new way", write("b/n", "3"), 3},
			{"written by the link", atomic("a/n", "4"), 4},
		}},
		{"a symbolic link", "n", all(mkdir("x"), write("x/1", "1"), link("x/1", "n")), []step{
			{"its target written", write("x/1", "2"), 2},
			{"its target replaced", atomic("x/1", "3"), 3},
			{"turned to something else", all(write("x/2", "4"), link("x/2", "next"), rename("next", "n")), 4},
			{"its new target written", write("x/2", "5"), 5},
			{"made a loop", all(link("n", "next"), rename("next", "n")), unreadable},
			{"made a file", atomic("n", "6"), 6},
		}},
		{"as Kubernetes fills a volume", "n", all(mkdir("..1"), write("..1/n", "1"), link("..1", "..data"), link("..data/n", "n")), []step{
			{"changed as a whole", all(mkdir("..2"), write("..2/n", "2"), link("..2", "..data_tmp"), rename("..data_tmp", "..data"), remove("..1")), 2},
			{"changed again", all(mkdir("..3"), write("..3/n", "3"), link("..3", "..data_tmp"), rename("..data_tmp", "..data"), remove("..2")), 3},
		}},
		{"through a parent of a link", "x/../n", all(mkdir("y"), mkdir("y/z"), link("y/z", "x"), write("y/n", "1")), []step{
			{"written", write("y/n", "2"), 2},
		}},
		{"a folder", "f", all(mkdir("f"), write("f/1", "1"), write("f/2", "2")), []step{
			{"a file replaced", atomic("f/1", "2"), 4},
			{"a file written in place", write("f/2", "3"), 5},
			{"one more file", atomic("f/3", "1"), 6},
			{"one file less", remove("f/1"), 4},
			{"no file left", all(remove("f/2"), remove("f/3")), 0},
			{"removed", remove("f"), unreadable},
			{"made again", all(mkdir("f"), atomic("f/1", "7")), 7},
			{"replaced by a file", all(remove("f"), write("f", "8")), 8},
			{"replaced by a folder", all(remove("f"), mkdir("f"), write("f/1", "9")), 9},
			{"written", write("f/1", "10"), 10},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.given(t, dir)
			// Not filepath.Join, which would shorten "x/..".
			c := counter(t, dir+"/"+test.path)
			if _, err := c.Count(t.Context()); err != nil && test.steps[0].want != unreadable {
				t.Fatal(err)
			}
			changed := c.Changed(t.Context())
			for _, s := range test.steps {
				t.Log(s.what)
				s.do(t, dir)
				await(t, c, changed, s.want)
			}
		})
	}
}

// Other events in the directories on the path are not reported.
func TestOnlyWhatMattersIsTold(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "f"), 0o700))
	file := follow(filepath.Join(dir, "n"))
	folder := follow(filepath.Join(dir, "f"))
	for _, test := range []struct {
		trail     trail
		dir, name string
		want      bool
	}{
		{file, dir, "n", true},
		{file, dir, ".n.tmp", false},
		{file, dir, "log", false},
		{file, filepath.Dir(dir), filepath.Base(dir), true},
		{file, filepath.Dir(dir), "other", false},
		{folder, filepath.Join(dir, "f"), "worker-1", true},
		{folder, filepath.Join(dir, "f"), ".worker-1.tmp", false},
		{folder, filepath.Join(dir, "f"), "worker-1.tmp", false},
		{folder, dir, "n", false},
	} {
		if got := test.trail.leads(test.dir, test.name); got != test.want {
			t.Errorf("leads(%q, %q) = %v, want %v", test.dir, test.name, got, test.want)
		}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "inflight")
	must(t, os.WriteFile(path, []byte("1"), 0o600))
	c := counter(t, path)
	// The watches of earlier tests are still ending when this test begins.
	wait.Until(t, "earlier watches' end", func() bool { return watches() == 0 })
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		changed := c.Changed(ctx)
		must(t, replace(path, "2"))
		await(t, c, changed, 2)
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Changed(ctx)
	wait.Until(t, "the watches' end", func() bool { return watches() == 0 && !strings.Contains(stacks(), "fsnotify") })
}

// A fast writer meets a reader that does not receive, and then one that does.
func TestStorm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inflight")
	must(t, os.WriteFile(path, []byte("1"), 0o600))
	c := counter(t, path)
	changed := c.Changed(t.Context())
	const writes = 20_000
	for i := range writes {
		if i%2 == 0 {
			must(t, replace(path, strconv.Itoa(i)))
		} else {
			must(t, os.WriteFile(path, []byte(strconv.Itoa(i)), 0o600))
		}
	}
	must(t, replace(path, "0"))
	await(t, c, changed, 0)
}

// Directories are created, moved and removed faster than they can be watched.
func TestStormOfDirectories(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "n")
	c := counter(t, path)
	changed := c.Changed(t.Context())
	put := func(holds string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
		must(t, replace(path, holds))
	}
	for range 500 {
		put("1")
		must(t, os.Rename(filepath.Join(dir, "a", "b"), filepath.Join(dir, "b")))
		must(t, os.RemoveAll(filepath.Join(dir, "b")))
		must(t, os.RemoveAll(filepath.Join(dir, "a")))
	}
	put("2")
	await(t, c, changed, 2)
	must(t, os.WriteFile(path, []byte("3"), 0o600))
	await(t, c, changed, 3)
}

// If the kernel had to drop events, following the path again replaces them.
func TestOverflow(t *testing.T) {
	dir := t.TempDir()
	watcher, err := fsnotify.NewWatcher()
	must(t, err)
	path := filepath.Join(dir, "a", "n")
	w := newWatch(path, watcher)
	// No watch is set yet, as if all events since then had been lost.
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	must(t, os.WriteFile(path, []byte("1"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.run(ctx); close(ended) }()
	watcher.Errors <- fsnotify.ErrEventOverflow
	c := counter(t, path)
	await(t, c, w.changed, 1)
	must(t, replace(path, "2"))
	await(t, c, w.changed, 2)
	cancel()
	<-ended
}

// unreadable is await's value for a reading that fails.
const unreadable = -1

// await reads only when a change is reported, until the counter returns want.
func await(t *testing.T, c *Counter, changed <-chan struct{}, want int64) {
	t.Helper()
	if changed == nil {
		t.Fatal("changes cannot be told")
	}
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for {
		select {
		case <-changed:
		case <-deadline.C:
			r, err := c.Count(t.Context())
			t.Fatalf("want %d; no change was told that leads there, and a reading now says %d, %v", want, r.InFlight, err)
		}
		r, err := c.Count(t.Context())
		if err == nil && r.InFlight == want || err != nil && want == unreadable {
			return
		}
	}
}

// watches returns the number of this process's inotify descriptors.
func watches() int {
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	n := 0
	for _, d := range descriptors {
		target, err := os.Readlink("/proc/self/fd/" + d.Name())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			panic(err)
		}
		if target == "anon_inode:inotify" {
			n++
		}
	}
	return n
}

func stacks() string {
	text := make([]byte, 1<<20)
	return string(text[:runtime.Stack(text, true)])
}
