// Package wait polls conditions that tests cannot be notified of.
package wait

import (
	"errors"
	"testing"
	"time"
)

// Patience is how long one condition may take on a busy machine.
const Patience = time.Minute

// The pauses between polls: short at first, longer for slow conditions.
const (
	first = 5 * time.Millisecond
	most  = 100 * time.Millisecond
)

// Until returns when ok returns true, and fails the test after Patience. what
// completes "waited for".
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	For(t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}

// For is Until with an error instead of a boolean. If it fails, it shows the last
// error.
func For(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	pause := first
	for {
		err := ok()
		if err == nil {
			return
		}
		look := time.NewTimer(pause)
		select {
		case <-look.C:
		case <-deadline.C:
			look.Stop()
			t.Fatalf("waited %v for %s in vain: %v", Patience, what, err)
		}
		pause = min(pause*3/2, most)
	}
}
