// Package countertest holds the suite that every counter passes against the
// real program that it reads, with real requests in flight.
package countertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/wait"
)

// Harness is what the suite needs of one real program. Its methods fail the
// test themselves when they cannot do what they say.
type Harness interface {
	// Counter makes the counter, set up to read the program, anew at each call.
	Counter(t *testing.T) drain.Counter
	// Begin puts one more piece of work in flight, and returns once the
	// program has it. The returned function ends it, and returns once its
	// client has its answer.
	Begin(t *testing.T) (end func())
	// Idle opens what is not work: an idle keep-alive connection that has had
	// an answer, for instance. It returns false where the program knows no
	// such thing.
	Idle(t *testing.T) bool
	// Break makes the program's answer unreadable (and not gone for good),
	// until the returned function mends it.
	Break(t *testing.T) (mend func())
	// Arrivals tells whether the counter can tell arrivals.
	Arrivals() bool
}

// callLimit is the deadline of one reading, as the drainer sets one.
const callLimit = 5 * time.Second

// Run runs the suite. start is called once for each test and gives it a
// program of its own.
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
	if !h.Arrivals() {
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

func unreadable(t *testing.T, h Harness) {
	c := h.Counter(t)
	end := h.Begin(t)
	settles(t, c, 1)
	mend := h.Break(t)
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
	mend()
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

// settles waits until the counter says want. A program may need a moment to
// see that a request has come or gone.
func settles(t *testing.T, c drain.Counter, want int64) {
	t.Helper()
	wait.For(t, fmt.Sprintf("%d in flight", want), func() error {
		if n := count(t, c).InFlight; n != want {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}
