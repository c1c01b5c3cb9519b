package tcp

import (
	"context"
	"net/netip"

	"lastcall/drain"
)

// Arrivals is a Counter that notices arriving clients and counts nothing as
// work. It complements a counter that sees the work but not the arrivals.
type Arrivals struct{ counter *Counter }

// NewArrivals returns a counter of the arrivals at the app's ports.
func NewArrivals(ports ...int) (*Arrivals, error) {
	c, err := New(Config{Count: Open}, ports...)
	return &Arrivals{c}, err
}

// Count returns a reading without work in flight. If the kernel's diagnostics
// are refused, its HasArrived is false.
func (a *Arrivals) Count(ctx context.Context) (drain.Reading, error) {
	r, err := a.counter.Count(ctx)
	r.InFlight = 0
	return r, err
}

// Changed is the same as [Counter.Changed].
func (a *Arrivals) Changed(ctx context.Context) <-chan struct{} { return a.counter.Changed(ctx) }

// IgnoreProbes is the same as [Counter.IgnoreProbes].
func (a *Arrivals) IgnoreProbes(from []netip.Addr) { a.counter.IgnoreProbes(from) }
