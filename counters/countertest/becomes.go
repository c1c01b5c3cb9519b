package countertest

import (
	"context"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// On is what may be seen on the way to a number.
type On func(drain.Reading, error) bool

// Anything may be seen.
func Anything(drain.Reading, error) bool { return true }

// Readable is any number, and no error.
func Readable(_ drain.Reading, err error) bool { return err == nil }

// NotZero is any number but 0, or an error.
func NotZero(r drain.Reading, err error) bool { return err != nil || r.InFlight != 0 }

// Unreadable is an error.
func Unreadable(_ drain.Reading, err error) bool { return err != nil }

// Nothing may be seen: the number is to be there at once.
func Nothing(drain.Reading, error) bool { return false }

// Becomes waits until the counter says want, and fails when a reading on the
// way is not what way allows.
func Becomes(t *testing.T, c drain.Counter, want int64, way On) drain.Reading {
	t.Helper()
	tick, deadline := time.NewTicker(10*time.Millisecond), time.NewTimer(wait.Patience)
	defer tick.Stop()
	defer deadline.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		r, err := c.Count(ctx)
		cancel()
		if err == nil && r.InFlight == want {
			return r
		}
		if !way(r, err) {
			t.Fatalf("got %+v, %v on the way to %d", r, err, want)
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("stays at %+v, %v, want %d", r, err, want)
		}
	}
}
