package drain

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
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

var errBroken = errors.New("broken on purpose")

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
)

// slowFor is how long what is slow takes: less than a call may.
const slowFor = 3 * time.Second

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
	case slow:
		pause(ctx, slowFor, nil)
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

// fakeRegistry is a registry whose answers to clients lag by lag.
type fakeRegistry struct {
	lag     time.Duration
	onCall  func(op string)
	onDone  func(op string, began time.Time, err error)
	onAsked func(gone bool, began time.Time, err error)

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
	if m == slow {
		time.AfterFunc(slowFor-time.Millisecond, func() { f.set(change) }) // before it answers
	}
	if err := m.behave(ctx); err != nil || m == lying || m == slow {
		return err
	}
	f.set(change)
	return m.answered(ctx)
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
		gone = !f.listed()
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
	return "the instance", m.answered(ctx)
}

// fakeCounter holds a number, and says that it tells changes when wake is set.
type fakeCounter struct {
	arrives bool
	onRead  func(Reading, error)

	mu       sync.Mutex
	mode     mode
	inFlight int64
	arrived  uint64
	open     int64 // connections, where knows is set
	knows    bool
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
		notify(f.wake)
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
	if f.wake == nil {
		return nil
	}
	return f.wake
}

// fakeApp listens on its ports, or does not. Each listener has an identity.
type fakeApp struct {
	names []int // its ports; 8080 when there are none

	mu        sync.Mutex
	mode      mode
	newest    uint64           // the identity that was given last
	listeners map[int][]uint64 // by port
	ever      map[int]bool     // the ports that anybody ever listened on
	others    []int            // ports that the rest of the pod listens on
	since     time.Time        // when it last began or ceased to listen at all
	looks     int
}

// startedApp is an app that has listened on its ports for an hour.
func startedApp(ports ...int) *fakeApp {
	f := &fakeApp{names: ports}
	f.set(true)
	f.since = time.Now().Add(-time.Hour)
	return f
}

func (f *fakeApp) Ports() []int {
	if f.names == nil {
		return []int{8080}
	}
	return f.names
}

// change changes who listens, under the lock.
func (f *fakeApp) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.listening()
	if f.listeners == nil {
		f.listeners, f.ever = map[int][]uint64{}, map[int]bool{}
	}
	change()
	for port := range f.listeners {
		f.ever[port] = true
	}
	if f.listening() != was {
		f.since = time.Now()
	}
}

// listening reports whether anybody listens. Callers hold f.mu.
func (f *fakeApp) listening() bool { return len(f.listeners) > 0 }

// set has the app listen on all of its ports, with new identities where it did
// not, or on none.
func (f *fakeApp) set(listening bool) {
	for _, port := range f.Ports() {
		if listening {
			f.change(func() {
				if len(f.listeners[port]) == 0 {
					f.newest++
					f.listeners[port] = []uint64{f.newest}
				}
			})
		} else {
			f.close(port)
		}
	}
}

// start has somebody else listen on the port, with no gap.
func (f *fakeApp) start(port int) {
	f.change(func() {
		f.newest++
		f.listeners[port] = []uint64{f.newest}
	})
}

// join has one more listen on the port, as a reload does, and leave has the
// oldest of several cease to.
func (f *fakeApp) join(port int) {
	f.change(func() {
		f.newest++
		f.listeners[port] = append(f.listeners[port], f.newest)
	})
}

func (f *fakeApp) leave(port int) {
	f.change(func() {
		if f.listeners[port] = f.listeners[port][1:]; len(f.listeners[port]) == 0 {
			delete(f.listeners, port)
		}
	})
}

func (f *fakeApp) close(port int) { f.change(func() { delete(f.listeners, port) }) }

func (f *fakeApp) Listeners(ctx context.Context) (map[int][]uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	if f.mode == failing {
		return nil, errBroken
	}
	now := map[int][]uint64{}
	for port, ids := range f.listeners {
		now[port] = slices.Clone(ids)
	}
	return now, ctx.Err()
}

func (f *fakeApp) OtherPorts(ctx context.Context) ([]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode == failing {
		return nil, errBroken
	}
	return slices.Clone(f.others), ctx.Err()
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
