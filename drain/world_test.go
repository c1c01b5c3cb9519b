package drain

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// after lets d of the bubble's time go by.
func after(d time.Duration) { <-time.After(d) }

var (
	errBroken = errors.New("broken on purpose")
	errAbsent = &NotFoundError{"nobody is registered at 10.0.0.1"}
)

// mode is how a fake behaves.
type mode int

const (
	healthy mode = iota
	failing      // answers with an error
	hanging      // never answers
	lying        // says that it is done, and does nothing
	panics       // has a fault of its own
	halfway      // does what it is told, and answers with an error
	slow         // takes 3 s, and does what it is told whatever has become of the call
	late         // the same, and takes longer than a call may
)

// takes is how long a call in this mode takes; 0 for those that are not slow.
func (m mode) takes() time.Duration {
	switch m {
	case slow:
		return 3 * time.Second
	case late:
		return callLimit + 2*time.Second
	default:
		return 0
	}
}

// behave returns an error, hangs until ctx ends, or panics, as the mode says.
func (m mode) behave(ctx context.Context) error {
	switch m {
	case failing:
		return errBroken
	case hanging:
		<-ctx.Done()
		return ctx.Err()
	case panics:
		panic("broken on purpose")
	case slow, late:
		pause(ctx, m.takes(), nil)
	case healthy, lying, halfway:
	}
	return ctx.Err()
}

// answered is the error of a call that has had its effect.
func (m mode) answered(ctx context.Context) error {
	if m == halfway {
		return errBroken
	}
	return ctx.Err()
}

// fakeCounter holds a number, and says that it tells changes when changes is set.
type fakeCounter struct {
	arrives bool
	onRead  func(Reading, error)

	mu       sync.Mutex
	mode     mode
	inFlight int64
	arrived  uint64
	open     int64 // connections, where knows is set
	knows    bool
	changes  chan struct{}
}

func (f *fakeCounter) set(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > f.inFlight {
		f.arrived += uint64(n - f.inFlight)
	}
	f.inFlight = n
	if f.changes != nil {
		notify(f.changes)
	}
}

func (f *fakeCounter) Count(ctx context.Context) (r Reading, err error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if ctx.Err() != nil {
		return r, ctx.Err() // nobody wants to know
	}
	if err = m.behave(ctx); err == nil {
		err = m.answered(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		r = Reading{InFlight: f.inFlight}
		if f.arrives {
			r.Arrived, r.HasArrived = f.arrived, true
		}
		if f.knows {
			r.Open, r.HasOpen = f.open, true
		}
	}
	if f.onRead != nil {
		f.onRead(r, err)
	}
	return r, err
}

func (f *fakeCounter) Changed(context.Context) <-chan struct{} {
	if f.changes == nil {
		return nil
	}
	return f.changes
}

// locked is a log that several goroutines write.
type locked struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logTo has the log written to l until the function that it returns is called.
func logTo(l *locked) (restore func()) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, nil)))
	return func() { slog.SetDefault(before) }
}
