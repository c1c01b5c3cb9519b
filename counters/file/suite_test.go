package file

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
)

func TestSuite(t *testing.T) {
	for _, how := range []string{"rename", "in place", "folder"} {
		t.Run(how, func(t *testing.T) {
			countertest.Run(t, func(t *testing.T) countertest.Harness { return harness{start(t, how)} })
		})
	}
}

type harness struct{ *program }

func (h harness) Counter(t *testing.T) drain.Counter { return counter(t, h.path) }
func (h harness) Begin(t *testing.T) (end func())    { return h.begin(t) }
func (h harness) Idle(t *testing.T) bool             { h.idle(t); return true }
func (h harness) Arrivals() bool                     { return false }
func (h harness) Break(t *testing.T) (repair func()) { return h.garbage(t) }

func (h harness) Except() map[countertest.Row]string {
	except := map[countertest.Row]string{
		countertest.Arrivals: "a number in a file does not tell that a request has come and gone between two readings",
		countertest.Stale:    "a file is read again each time, and holds nothing that must grow with each reading",
	}
	if h.how == "folder" {
		except[countertest.Missing] = "a file that is missing from a folder is that of a worker that has ended, and its work with it"
	}
	return except
}

// Hide moves the file away.
func (h harness) Hide(t *testing.T) (counter func() drain.Counter, hide, repair func()) {
	away := h.path + ".away"
	return func() drain.Counter { return h.Counter(t) },
		func() { must(t, os.Rename(h.path, away)) },
		func() { must(t, os.Rename(away, h.path)) }
}

// garbage overwrites the file. In a folder, it adds a file.
func (h harness) garbage(t *testing.T) (repair func()) {
	t.Helper()
	if h.how == "folder" {
		stray := filepath.Join(h.path, "core.1")
		must(t, os.WriteFile(stray, []byte("\x7fELF\x02\x01\x01"), 0o600))
		return func() { must(t, os.Remove(stray)) }
	}
	held, err := os.ReadFile(h.path)
	must(t, err)
	must(t, replace(h.path, "\x00\x00\x00 not a number"))
	return func() { must(t, replace(h.path, string(held))) }
}

// When workers end, their files are removed, and their work no longer counts.
func TestWorkersThatEnd(t *testing.T) {
	p := start(t, "folder")
	c := counter(t, p.path)
	changed := c.Changed(t.Context())
	end := p.begin(t)
	await(t, c, changed, 1)
	end()
	await(t, c, changed, 0)
	p.stop()
	if n := inFlight(t, c); n != 0 {
		t.Fatalf("in flight %d after all workers have ended, want 0", n)
	}
	if _, err := counter(t, p.path).Count(t.Context()); !errors.Is(err, errNoFiles) {
		t.Fatalf("a counter that has seen no worker: got %v, want %v", err, errNoFiles)
	}
}

// All workers of a pre-forking server are counted, each by its own file.
func TestWorkersAreAdded(t *testing.T) {
	p := start(t, "folder")
	c := counter(t, p.path)
	changed := c.Changed(t.Context())
	const requests = 40
	ends := make([]func(), requests)
	for i := range ends {
		ends[i] = p.begin(t)
	}
	await(t, c, changed, requests)
	for _, end := range ends {
		end()
	}
	await(t, c, changed, 0)
	names, err := filepath.Glob(filepath.Join(p.path, "worker-*"))
	must(t, err)
	if len(names) != workers {
		t.Fatalf("the workers keep %d files, want %d", len(names), workers)
	}
}
