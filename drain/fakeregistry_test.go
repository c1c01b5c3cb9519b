package drain

import (
	"context"
	"sync"
	"time"
)

// fakeRegistry is a registry whose answers to clients lag by lag.
type fakeRegistry struct {
	lag     time.Duration
	onCall  func(op string)
	onDone  func(op string, began time.Time, err error)
	onAsked func(gone bool, began time.Time, err error)

	mu            sync.Mutex
	mode          mode
	modeAt        time.Time
	registered    bool
	override      bool
	changed       time.Time // when registered or override last changed
	before        bool      // whether clients were told of the pod before that
	withdrawals   int       // that had an effect
	deregistered  int
	located       bool // a call has seen that it is registered
	locatedAt     time.Time
	registrations int    // where the sidecar registers the app
	hopeless      string // why it cannot be withdrawn; empty: it can
	asks          int    // how often it was asked whether it lists the pod
	sawListed     bool   // and has said so, or that the pod is not withdrawn
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

// search sees whether the pod is registered. Callers hold f.mu.
func (f *fakeRegistry) search() bool {
	if f.registered && !f.located {
		f.located, f.locatedAt = true, time.Now()
	}
	return f.registered
}

// fakeLocator is a registry that says whether it has ever found the instance,
// and whether it can be withdrawn.
type fakeLocator struct{ *fakeRegistry }

func (f fakeLocator) Located() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.located
}

func (f fakeLocator) GaveUp() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hopeless
}

func (f fakeLocator) Find(ctx context.Context) (string, error) {
	what, err := f.fakeRegistry.Find(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && !f.registered {
		return "", errAbsent
	}
	return what, err
}

// fakeLister is one that says itself whether clients are told of the pod.
type fakeLister struct{ fakeLocator }

func (f fakeLister) Listed(ctx context.Context) (listed bool, why string, err error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if f.onDone != nil {
		began := time.Now()
		err = errBroken // unless it returns
		defer func() { f.onDone("listed", began, err) }()
	}
	if err := m.behave(ctx); err != nil {
		return false, "", err
	}
	if err := m.answered(ctx); err != nil {
		return false, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.search()
	f.asks++
	f.sawListed = f.sawListed || f.listed()
	return f.listed(), "it is not up yet", nil
}

// listed reports whether clients are told of the pod now. Callers hold f.mu.
func (f *fakeRegistry) listed() bool {
	if time.Since(f.changed) < f.lag {
		return f.before
	}
	return f.registered && !f.override
}

func (f *fakeRegistry) do(ctx context.Context, op string, change func()) (err error) {
	if f.onCall != nil {
		f.onCall(op)
	}
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if f.onDone != nil {
		began := time.Now()
		err = errBroken // unless it returns
		defer func() { f.onDone(op, began, err) }()
	}
	if m.takes() > 0 {
		time.AfterFunc(m.takes()-time.Millisecond, func() { f.set(change) }) // before it answers
	}
	if err := m.behave(ctx); err != nil || m == lying || m.takes() > 0 {
		return err
	}
	f.set(change)
	return m.answered(ctx)
}

func (f *fakeRegistry) Withdraw(ctx context.Context) error {
	return f.do(ctx, "withdraw", func() {
		if f.search() && f.hopeless == "" {
			f.override = true
			f.withdrawals++
		}
	})
}

func (f *fakeRegistry) Restore(ctx context.Context) error {
	return f.do(ctx, "restore", func() { f.override, f.hopeless = false, "" })
}

func (f *fakeRegistry) Deregister(ctx context.Context) error {
	return f.do(ctx, "deregister", func() { f.registered, f.override = false, false; f.deregistered++ })
}

func (f *fakeRegistry) Withdrawn(ctx context.Context) (gone bool, err error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	began := time.Now()
	if f.onDone != nil {
		err = errBroken // unless it returns
		defer func() { f.onDone("ask", began, err) }()
	}
	if err = m.behave(ctx); err == nil {
		err = m.answered(ctx)
	}
	if err == nil {
		f.mu.Lock()
		f.search()
		gone = !f.listed() || f.hopeless != ""
		f.sawListed = f.sawListed || !gone
		f.mu.Unlock()
	}
	if f.onAsked != nil {
		f.onAsked(gone, began, err)
	}
	return gone, err
}

func (f *fakeRegistry) Find(ctx context.Context) (_ string, err error) {
	f.mu.Lock()
	m := f.mode
	f.mu.Unlock()
	if f.onDone != nil {
		began := time.Now()
		err = errBroken // unless it returns
		defer func() { f.onDone("find", began, err) }()
	}
	if err := m.behave(ctx); err != nil {
		return "", err
	}
	f.mu.Lock()
	f.search()
	f.mu.Unlock()
	return "the instance", m.answered(ctx)
}

// fakeRegistrar is one in which the sidecar registers the app. It has one layer:
// an instance that is registered again is in service, whatever was withdrawn.
type fakeRegistrar struct{ *fakeRegistry }

func (f fakeRegistrar) RegisterEvery() time.Duration { return registerEvery }

// registerEvery is how often leases are renewed.
const registerEvery = 10 * time.Second

func (f fakeRegistrar) Register(ctx context.Context, ready bool) error {
	op := "register"
	if !ready {
		op = "register not ready"
	}
	return f.do(ctx, op, func() {
		switch {
		case !ready:
			f.registered, f.override = false, false
		case !f.registered:
			f.registered, f.override = true, false
		}
		f.registrations++
	})
}
