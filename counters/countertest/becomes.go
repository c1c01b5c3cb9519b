package countertest

import (
	"context"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

// On reports whether a reading is allowed before the expected number.
type On func(drain.Reading, error) bool

// Anything allows every reading.
func Anything(drain.Reading, error) bool { return true }

// Readable allows any number, but no error.
func Readable(_ drain.Reading, err error) bool { return err == nil }

// NotZero allows any number except 0, and errors.
func NotZero(r drain.Reading, err error) bool { return err != nil || r.InFlight != 0 }

// Unreadable allows only errors.
func Unreadable(_ drain.Reading, err error) bool { return err != nil }

// Nothing allows no other reading: the number must be there at once.
func Nothing(drain.Reading, error) bool { return false }

// Becomes waits until the counter returns want. The test fails if way does not
// allow a reading before that.
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
