package drain

import (
	"context"
	"sync"
	"time"
)

// fakeSwitch is a proxy's listeners, or a notice: on when told of a drain.
type fakeSwitch struct {
	onDone func(on bool, began time.Time, err error)

	mu      sync.Mutex
	mode    mode
	since   time.Time // when it last turned to its mode
	on      bool
	calling int // calls under way
}

func (f *fakeSwitch) turn(m mode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode, f.since = m, time.Now()
}

// is reports whether it is on, since when it has been in its mode, and whether
// that is healthy with no call under way.
func (f *fakeSwitch) is() (on bool, since time.Time, well bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.on, f.since, f.mode == healthy && f.calling == 0
}

func (f *fakeSwitch) set(ctx context.Context, on bool) (err error) {
	f.mu.Lock()
	m := f.mode
	f.calling++
	f.mu.Unlock()
	began := time.Now()
	err = errBroken // unless it returns
	defer func() {
		f.mu.Lock()
		f.calling--
		f.mu.Unlock()
		if f.onDone != nil {
			f.onDone(on, began, err)
		}
	}()
	act := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.on = on
	}
	if m.takes() > 0 {
		time.AfterFunc(m.takes()-time.Millisecond, act) // before it answers
	}
	if err := m.behave(ctx); err != nil || m.takes() > 0 {
		return err
	}
	act()
	return m.answered(ctx)
}

// fakeStopper is a counter whose proxy can be told of a drain, and fakeProxy one
// whose proxy can be told of its end too.
type fakeStopper struct {
	*fakeCounter
	listeners *fakeSwitch
}

func (f fakeStopper) StopAccepting(ctx context.Context) error { return f.listeners.set(ctx, true) }

type fakeProxy struct{ fakeStopper }

func (f fakeProxy) StartAccepting(ctx context.Context) error { return f.listeners.set(ctx, false) }

// switchedNotice is a Notice.
type switchedNotice struct{ *fakeSwitch }

func (s switchedNotice) Post(ctx context.Context) error   { return s.set(ctx, true) }
func (s switchedNotice) Remove(ctx context.Context) error { return s.set(ctx, false) }
