package wait

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// failed is a test that records its failure message.
type failed struct {
	testing.TB
	why string
}

func (f *failed) Helper() {}

func (f *failed) Fatalf(format string, args ...any) {
	f.why = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// end runs f as a separate test, and returns its failure message, or "".
func end(f func(testing.TB)) string {
	t := &failed{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(t)
	}()
	<-done
	return t.why
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, looks := time.Now(), 0
		Until(t, "the tenth look", func() bool { looks++; return looks == 10 })
		if took := time.Since(began); took < 9*first || took > 9*most {
			t.Errorf("10 looks took %v", took)
		}

		began = time.Now()
		why := end(func(t testing.TB) { Until(t, "the moon", func() bool { return false }) })
		if took := time.Since(began); took != Patience || why != "waited 1m0s for the moon in vain: not yet" {
			t.Errorf("after %v: %q", took, why)
		}
	})
}

func TestForShowsTheLastError(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		looks := 0
		why := end(func(t testing.TB) {
			For(t, "the moon", func() error { looks++; return errors.New("look " + fmt.Sprint(looks)) })
		})
		if looks < int(Patience/most) || !strings.HasSuffix(why, fmt.Sprintf("in vain: look %d", looks)) {
			t.Errorf("after %d looks: %q", looks, why)
		}
	})
}
