package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Changed reports changes on the returned channel until ctx ends, wherever they
// happen on the path: the file is written in place or replaced, a directory is
// created, moved or replaced, or a symbolic link is changed.
//
// Not every change can be reported. The kernel does not see changes that
// another node makes on NFS or FUSE, nor changes by mmap. A file that is
// mounted by itself (a volume's subPath) never changes by renaming. So the
// drainer also reads the counter from time to time.
func (c *Counter) Changed(ctx context.Context) <-chan struct{} {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		// The most common cause is the user's limit of inotify instances, which
		// all pods of a node share: fs.inotify.max_user_instances.
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

// watch is the state of one call of Changed.
type watch struct {
	path    string
	trail   trail
	watcher *fsnotify.Watcher
	lost    chan struct{} // events may have been lost
	changed chan struct{}
}

// newWatch receives the watcher's errors from the start, separately from its
// events. fsnotify reports some errors while it holds the lock for which its
// Add and Remove wait, for example for a directory that was moved and removed
// at once.
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

// run handles events until ctx ends. It closes the watcher.
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
			// Most likely there were too many events at once
			// (fsnotify.ErrEventOverflow). What they reported can only be found
			// by following the path again.
			w.again()
		}
	}
}

// see handles one event, for a name in a directory or for a directory itself.
func (w *watch) see(e fsnotify.Event) {
	name := filepath.Clean(e.Name) // a name in the root is "//x"
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

// again follows the path again: it may lead to another file now.
func (w *watch) again() {
	if err := w.arm(); err != nil {
		slog.Debug("watching the in-flight file", "path", w.path, "error", err)
	}
	notify(w.changed)
}

// notify sends without blocking. Several notifications that nobody has received
// yet become one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// maxRounds limits how often arm tries again in a file tree that keeps
// changing.
const maxRounds = 16

// arm watches each directory of the trail, and no others. When it returns nil,
// the trail was the same before and after the watches were set.
func (w *watch) arm() error {
	for range maxRounds {
		t := follow(w.path)
		// Remove the old watches first: if a directory was moved and is still
		// on the path under another name, it has a single watch, with its old
		// name.
		for _, dir := range w.watcher.WatchList() {
			if _, wanted := t.names[dir]; !wanted {
				_ = w.watcher.Remove(dir) // if this fails, the watch is gone
			}
		}
		var failed error
		for dir := range t.names {
			// Add dir even if it is watched: it may be another directory by
			// now.
			err := w.watcher.Add(dir)
			// A directory on the path may be one that can be traversed but not
			// read. The last one is where the file is written.
			if err != nil && dir == t.last {
				failed = fmt.Errorf("watching %s: %w", dir, err)
			}
		}
		w.trail = t
		if t.equal(follow(w.path)) {
			return failed
		}
	}
	return errors.New("the path to it keeps changing")
}
