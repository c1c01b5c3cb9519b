package drain

import (
	"context"
	"errors"
	"log/slog"
	"os"
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

var errBroken = errors.New("broken on purpose")

// mode is how a fake behaves.
type mode int

const (
	healthy mode = iota
	failing      // answers with an error
	hanging      // never answers
	lying        // says that it is done, and does nothing
	panics       // has a fault of its own
)

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
	case healthy, lying:
	}
	return ctx.Err()
}

// fakeRegistry is a registry whose answers to clients lag by lag.
type fakeRegistry struct {
	lag     time.Duration
	onCall  func(op string)
	onAsked func(gone bool, err error)

	mu           sync.Mutex
	mode         mode
	registered   bool
	override     bool
	changed      time.Time // when registered or override last changed
	before       bool      // whether clients were told of the pod before that
	withdrawals  int       // that had an effect
	deregistered int
}

func (f *fakeRegistry) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	listed, was := f.listed(), f.registered && !f.override
	change()
	if is := f.registered && !f.override; is != was {
		f.before, f.changed = listed, time.Now()
	}
}

// seen tells what the registry has been told.
func (f *fakeRegistry) seen() (withdrawals, deregistered int, override bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.withdrawals, f.deregistered, f.override
}

// listed tells whether clients are told of the pod now. Callers hold f.mu.
func (f *fakeRegistry) listed() bool {
	if time.Since(f.changed) < f.lag {
		return f.before
	}
	return f.registered && !f.override
}

func (f *fakeRegistry) do(ctx context.Context, op string, change func()) error {
	if f.onCall != nil {
		f.onCall(op)
	}
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if err := m.behave(ctx); err != nil || m == lying {
		return err
	}
	f.set(change)
	return nil
}

func (f *fakeRegistry) Withdraw(ctx context.Context) error {
	return f.do(ctx, "withdraw", func() { f.override = true; f.withdrawals++ })
}

func (f *fakeRegistry) Restore(ctx context.Context) error {
	return f.do(ctx, "restore", func() { f.override = false })
}

func (f *fakeRegistry) Deregister(ctx context.Context) error {
	return f.do(ctx, "deregister", func() { f.registered, f.override = false, false; f.deregistered++ })
}

func (f *fakeRegistry) Withdrawn(ctx context.Context) (gone bool, err error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if err = m.behave(ctx); err == nil {
		f.mu.Lock()
		gone = !f.listed()
		f.mu.Unlock()
	}
	if f.onAsked != nil {
		f.onAsked(gone, err)
	}
	return gone, err
}

func (f *fakeRegistry) Find(ctx context.Context) (string, error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if err := m.behave(ctx); err != nil {
		return "", err
	}
	return "the instance", nil
}

// fakeCounter holds a number, and says that it tells changes when wake is set.
type fakeCounter struct {
	arrives bool
	onRead  func(Reading, error)

	mu       sync.Mutex
	mode     mode
	inFlight int64
	arrived  uint64
	wake     chan struct{}
}

func (f *fakeCounter) set(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > f.inFlight {
		f.arrived += uint64(n - f.inFlight)
	}
	f.inFlight = n
	if f.wake != nil {
		poke(f.wake)
	}
}

func (f *fakeCounter) Count(ctx context.Context) (r Reading, err error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if ctx.Err() != nil {
		return r, ctx.Err() // nobody wants to know
	}
	err = m.behave(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		r = Reading{InFlight: f.inFlight}
		if f.arrives {
			r.Arrived, r.HasArrived = f.arrived, true
		}
	}
	if f.onRead != nil {
		f.onRead(r, err)
	}
	return r, err
}

func (f *fakeCounter) Changed(context.Context) <-chan struct{} {
	if f.wake == nil {
		return nil
	}
	return f.wake
}

// fakeApp listens, or does not.
type fakeApp struct {
	mu        sync.Mutex
	mode      mode
	listening bool
	since     time.Time
}

func (f *fakeApp) set(listening bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listening != listening {
		f.listening, f.since = listening, time.Now()
	}
}

func (f *fakeApp) Listening(ctx context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode == failing {
		return false, errBroken
	}
	return f.listening, ctx.Err()
}
