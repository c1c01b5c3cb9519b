// Package countertest contains the suite of tests for counters. Every counter
// passes it against the real program that it reads, with real requests in
// flight.
package countertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// Harness is what the suite needs from one real program. Its methods fail the
// test if they cannot do what they promise.
type Harness interface {
	// Counter returns a new counter on each call, configured to read the
	// program.
	Counter(t *testing.T) drain.Counter
	// Begin puts one more request in flight, and returns once the program has
	// it. The returned function ends the request, and returns once its client
	// has its answer.
	Begin(t *testing.T) (end func())
	// Idle opens a connection that is not work, for instance a keep-alive
	// connection that has received an answer. It returns false if the program
	// has no such connections.
	Idle(t *testing.T) bool
	// Break makes the program's answer unreadable (but not gone for good),
	// until the returned function repairs it.
	Break(t *testing.T) (repair func())
	// Arrivals reports whether the counter reports arrivals. If it does not,
	// the harness must be an Excepter that gives the reason.
	Arrivals() bool
}

// Hider is a Harness whose program can omit a part of what is counted from its
// answer, and leave the rest as it was: a statistic, a frontend, the end of a
// page. A harness that is not a Hider must be an Excepter that gives the
// reason.
type Hider interface {
	// Hide returns a function that makes counters which read the program.
	// Between the calls of hide and repair, the program's answer omits what
	// counts Begin's work.
	Hide(t *testing.T) (counter func() drain.Counter, hide, repair func())
}

// Staler is a Harness whose counter can be given an old answer. A harness that
// is not a Staler must be an Excepter that gives the reason.
type Staler interface {
	// Stale makes a counter that reads the program through a cache. The cache
	// forwards everything until store is called. From then on, it repeats the
	// first answers that it receives, until repair is called.
	Stale(t *testing.T) (c drain.Counter, store, repair func())
}

// Row names a test that does not apply to every counter.
type Row string

// The rows from which a harness may be excepted.
const (
	Arrivals Row = "arrivals"
	Missing  Row = "what is missing"
	Stale    Row = "stale answers"
)

// Excepter is a Harness to which some rows do not apply. The suite logs the
// reason. A row fails if it is neither excepted nor can be run.
type Excepter interface {
	// Except returns the reason for each row that does not apply, as a
	// sentence.
	Except() map[Row]string
}

// excepted reports whether a row does not apply to a harness, and logs the
// reason.
func excepted(t *testing.T, h Harness, row Row) bool {
	t.Helper()
	e, ok := h.(Excepter)
	if !ok {
		return false
	}
	why := e.Except()[row]
	if why != "" {
		t.Logf("the row does not apply: %s", why)
	}
	return why != ""
}

// callLimit is the deadline of one reading, like the drainer's.
const callLimit = 5 * time.Second

// Run runs the suite. It calls start once for each test, which gives the test
// its own program.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"nothing in flight is zero, however often it is read", idleIsZero},
		{"each piece of work counts until it ends", workCounts},
		{"idle connections are not work", idleConnections},
		{"arrivals grow with work, and not with readings", arrivalsGrow},
		{"unreadable is an error, and readable again when mended", unreadable},
		{"an ended context ends a reading", endedContext},
		{"an end is told by those that can tell", endIsTold},
		{"arrivals are seen one after the other", shortWorkArrives},
		{"what is missing is an error, and never zero", missing},
		{"an old answer is an error, and never zero", stale},
		{"open connections are those of clients", openConnections},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, start(t)) })
	}
}

func idleIsZero(t *testing.T, h Harness) {
	c := h.Counter(t)
	for range 20 {
		if r := count(t, c); r.InFlight != 0 {
			t.Fatalf("in flight %d, want 0: the counter counts its own reading", r.InFlight)
		}
	}
}

func workCounts(t *testing.T, h Harness) {
	c := h.Counter(t)
	var ends []func()
	for n := int64(1); n <= 3; n++ {
		ends = append(ends, h.Begin(t))
		settles(t, c, n)
	}
	for i, end := range ends {
		end()
		settles(t, c, int64(len(ends)-1-i))
	}
}

func idleConnections(t *testing.T, h Harness) {
	c := h.Counter(t)
	if !h.Idle(t) {
		return
	}
	settles(t, c, 0)
	end := h.Begin(t)
	settles(t, c, 1)
	h.Idle(t)
	settles(t, c, 1)
	end()
	settles(t, c, 0)
}

func arrivalsGrow(t *testing.T, h Harness) {
	c := h.Counter(t)
	before := count(t, c)
	if before.HasArrived != h.Arrivals() {
		t.Fatalf("HasArrived is %v, want %v", before.HasArrived, h.Arrivals())
	}
	if !arrives(t, h) {
		return
	}
	for range 5 {
		count(t, c)
	}
	if again := count(t, c); again.Arrived != before.Arrived {
		t.Fatalf("arrivals went from %d to %d by reading alone", before.Arrived, again.Arrived)
	}
	h.Begin(t)()
	wait.Until(t, "an arrival that came and went between two readings", func() bool {
		return count(t, c).Arrived > before.Arrived
	})
}

// arrives reports whether the rows for arrivals apply.
func arrives(t *testing.T, h Harness) bool {
	t.Helper()
	switch except := excepted(t, h, Arrivals); {
	case except && h.Arrivals():
		t.Fatal("the counter can tell arrivals, and is excepted from the row")
	case !except && !h.Arrivals():
		t.Fatal("the counter cannot tell arrivals: its harness must be an Excepter that says why")
	}
	return h.Arrivals()
}

// shortWorkArrives lets work come and go between two readings, several times: a
// pod with such clients is not quiet, although nothing is in flight.
func shortWorkArrives(t *testing.T, h Harness) {
	if !arrives(t, h) {
		return
	}
	c := h.Counter(t)
	last := count(t, c).Arrived
	for range 5 {
		h.Begin(t)()
		wait.Until(t, "an arrival", func() bool { return count(t, c).Arrived > last })
		settles(t, c, 0)
		last = count(t, c).Arrived
	}
}

func missing(t *testing.T, h Harness) {
	if excepted(t, h, Missing) {
		return
	}
	hider, ok := h.(Hider)
	if !ok {
		t.Fatal("the harness must be a Hider, or an Excepter that says why it cannot be one")
	}
	counter, hide, repair := hider.Hide(t)
	c := counter()
	end := h.Begin(t)
	settles(t, c, 1)
	hide()
	fails(t, c)
	// A counter that has never read a complete answer must fail too.
	fails(t, counter())
	repair()
	wait.Until(t, "a reading after the mending", func() bool {
		r, err := read(t, c)
		if err == nil && r.InFlight < 1 {
			t.Fatalf("got %+v with work in flight", r)
		}
		return err == nil
	})
	end()
	settles(t, c, 0)
}

// fails waits until readings fail. No reading may return less than the 1 that
// is in flight.
func fails(t *testing.T, c drain.Counter) {
	t.Helper()
	failed := 0
	wait.Until(t, "five errors in a row", func() bool {
		r, err := read(t, c)
		if err == nil && r.InFlight < 1 {
			t.Fatalf("got %+v with work in flight that the answer does not hold", r)
		}
		if failed++; err == nil {
			failed = 0
		}
		return failed == 5
	})
}

func stale(t *testing.T, h Harness) {
	if excepted(t, h, Stale) {
		return
	}
	staler, ok := h.(Staler)
	if !ok {
		t.Fatal("the harness must be a Staler, or an Excepter that says why it cannot be one")
	}
	c, store, repair := staler.Stale(t)
	settles(t, c, 0)
	store()
	if _, err := read(t, c); err != nil { // this reading fills the cache
		t.Logf("the first stored answer: %v", err)
	}
	end := h.Begin(t)
	for range 20 {
		if r, err := read(t, c); err == nil {
			t.Fatalf("got %+v from a stored answer, with work in flight", r)
		}
	}
	repair()
	wait.Until(t, "a reading after the mending", func() bool {
		r, err := read(t, c)
		if err == nil && r.InFlight < 1 {
			t.Fatalf("got %+v with work in flight", r)
		}
		return err == nil
	})
	end()
	settles(t, c, 0)
}

// openConnections applies to counters whose readings report how many
// connections are open. If there are none, no client may have one.
func openConnections(t *testing.T, h Harness) {
	c := h.Counter(t)
	if !count(t, c).HasOpen {
		t.Log("the row does not apply: the counter does not tell the open connections (HasOpen)")
		return
	}
	opens := func(what string, right func(n int64) bool) {
		t.Helper()
		wait.For(t, what, func() error {
			if r := count(t, c); !r.HasOpen || !right(r.Open) {
				return fmt.Errorf("got %+v", r)
			}
			return nil
		})
	}
	opens("no connection open", func(n int64) bool { return n == 0 })
	idle := h.Idle(t)
	if idle {
		opens("an idle connection that is open", func(n int64) bool { return n > 0 })
	}
	end := h.Begin(t)
	opens("a connection with work", func(n int64) bool { return n > 0 })
	end()
	if idle {
		opens("an idle connection that is open still", func(n int64) bool { return n > 0 })
	}
}

func unreadable(t *testing.T, h Harness) {
	c := h.Counter(t)
	end := h.Begin(t)
	settles(t, c, 1)
	repair := h.Break(t)
	wait.Until(t, "an error", func() bool {
		r, err := read(t, c)
		if err == nil && r.InFlight != 1 {
			t.Fatalf("unreadable was read as %d", r.InFlight)
		}
		return err != nil
	})
	for range 3 {
		if r, err := read(t, c); err == nil {
			t.Fatalf("unreadable was read as %d", r.InFlight)
		}
	}
	repair()
	wait.Until(t, "a reading after the mending", func() bool {
		_, err := read(t, c)
		return err == nil
	})
	end()
	settles(t, c, 0)
}

func endedContext(t *testing.T, h Harness) {
	c := h.Counter(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Count(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want an error that is context.Canceled", err)
	}
}

func endIsTold(t *testing.T, h Harness) {
	c := h.Counter(t)
	n, ok := c.(drain.Notifier)
	if !ok {
		return
	}
	end := h.Begin(t)
	settles(t, c, 1)
	changed := n.Changed(t.Context())
	if changed == nil {
		t.Fatal("Changed gave no channel")
	}
	end()
	deadline := time.NewTimer(wait.Patience)
	defer deadline.Stop()
	for {
		select {
		case <-changed:
			if count(t, c).InFlight == 0 {
				return
			}
		case <-deadline.C:
			t.Fatalf("waited %v for a change to be told, in vain", wait.Patience)
		}
	}
}

func read(t *testing.T, c drain.Counter) (drain.Reading, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	return c.Count(ctx)
}

func count(t *testing.T, c drain.Counter) drain.Reading {
	t.Helper()
	r, err := read(t, c)
	if err != nil {
		t.Fatalf("Count: %v", err)
	}
	return r
}

// settles waits until the counter returns want. A program may need a moment to
// count a request that has come or gone.
func settles(t *testing.T, c drain.Counter, want int64) {
	t.Helper()
	wait.For(t, fmt.Sprintf("%d in flight", want), func() error {
		if n := count(t, c).InFlight; n != want {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}
