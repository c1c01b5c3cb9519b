package drain

import (
	"context"
	"slices"
	"sync"
	"time"
)

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
