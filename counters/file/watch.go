package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Changed tells of changes from its return until ctx ends, wherever they happen
// on the way to the path: the file written in place or replaced, a directory
// made, moved or replaced, a symbolic link turned to something else.
//
// Not every change can be told. The kernel sees none that another node makes on
// NFS or FUSE, and none by mmap; nor does a file that is mounted by itself (a
// volume's subPath) ever change by renaming. The drainer reads the counter now
// and then besides.
func (c *Counter) Changed(ctx context.Context) <-chan struct{} {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		// Most often the user's limit of inotify instances, which all pods
		// of a node share: fs.inotify.max_user_instances.
		slog.WarnContext(ctx, "cannot watch the in-flight file, it is polled instead", "path", c.path, "error", err)
		return nil
	}
	w := newWatch(c.path, watcher)
	if err := w.arm(); err != nil {
		_ = watcher.Close() // nothing is watched
		slog.WarnContext(ctx, "cannot watch the in-flight file, it is polled instead", "path", c.path, "error", err)
		return nil
	}
	go w.run(ctx)
	return w.changed
}

// watch is one call of Changed.
type watch struct {
	path    string
	trail   trail
	watcher *fsnotify.Watcher
	lost    chan struct{} // events may have been lost
	changed chan struct{}
}

// newWatch listens to the watcher's errors from the start on, apart from its
// events: fsnotify reports some while it holds the lock that its Add and Remove
// wait for, such as a directory that was moved and removed at once.
func newWatch(path string, watcher *fsnotify.Watcher) *watch {
	w := &watch{path: path, watcher: watcher, lost: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	go func() {
		for err := range watcher.Errors { // until the watcher is closed
			slog.Debug("watching the in-flight file", "path", path, "error", err)
			notify(w.lost)
		}
	}()
	return w
}

// run ends, and leaves nothing behind, when ctx does.
func (w *watch) run(ctx context.Context) {
	defer w.watcher.Close() //nolint:errcheck // nothing is left to do about it
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-w.watcher.Events:
			if !open {
				return
			}
			w.see(e)
		case <-w.lost:
			// Too many at once (fsnotify.ErrEventOverflow), most likely: what
			// was in them can only be looked up.
			w.again()
		}
	}
}

// see takes one event: of a name in a directory, or of a directory itself.
func (w *watch) see(e fsnotify.Event) {
	name := filepath.Clean(e.Name) // "//x" for what is in the root
	_, itself := w.trail.names[name]
	if !itself && !w.trail.leads(filepath.Dir(name), filepath.Base(name)) {
		return
	}
	if e.Op == fsnotify.Write {
		notify(w.changed)
		return
	}
	w.again()
}

// again follows the path again: another may lead there now.
func (w *watch) again() {
	if err := w.arm(); err != nil {
		slog.Debug("watching the in-flight file", "path", w.path, "error", err)
	}
	notify(w.changed)
}

// notify never blocks: what nobody has taken yet is told once.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// maxRounds bounds how often arm looks again in a file tree that keeps changing.
const maxRounds = 16

// arm watches each directory of the trail, and no other. When it returns, the
// trail was the same after the watches were set as before.
func (w *watch) arm() error {
	for range maxRounds {
		t := follow(w.path)
		// First away with the old ones: a directory that was moved, and is
		// still on the way under another name, has one watch by its old name.
		for _, dir := range w.watcher.WatchList() {
			if _, wanted := t.names[dir]; !wanted {
				_ = w.watcher.Remove(dir) // gone, if it fails
			}
		}
		var failed error
		for dir := range t.names {
			// Also when dir is watched: it may be another directory by now.
			err := w.watcher.Add(dir)
			// A directory on the way may be one to pass but not to read. The
			// last is where the file is written.
			if err != nil && dir == t.last {
				failed = fmt.Errorf("watching %s: %w", dir, err)
			}
		}
		w.trail = t
		if t.equal(follow(w.path)) {
			return failed
		}
	}
	return errors.New("the way to it keeps changing")
}
