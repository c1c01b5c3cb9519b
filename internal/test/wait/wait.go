// Package wait has tests wait for what nothing tells.
package wait

import (
	"errors"
	"testing"
	"time"
)

// Patience is how long anything may take on a busy machine.
const Patience = time.Minute

// Between two looks: short at first, and no burden for what is slow.
const (
	first = 5 * time.Millisecond
	most  = 50 * time.Millisecond
)

// Until returns when ok says so, and ends the test when that takes longer than
// Patience. What completes "waited for".
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	For(t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}

// For is Until for what can tell what is wrong: the last of its errors is shown.
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
