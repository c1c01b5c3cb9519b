package server

import (
	"cmp"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The bounds of connections. With what one of each kind can cost at most (see
// docs/security.md), they fit into the memory limit of deploy/.
const (
	// maxOthers bounds the connections of all callers but the kubelet.
	maxOthers = 256
	// maxPerAddress bounds those of one address. Loopback addresses have no
	// bound of their own: a mesh's proxy calls from one for everybody.
	maxPerAddress = 64
	// maxKubelet bounds the connections of one of the kubelet's addresses. It
	// makes one for each probe, and one for each hook that blocks.
	maxKubelet = 32
	// maxPartial bounds the connections that have sent a part of a request. A
	// part of a header costs more than a request that was read.
	maxPartial = 32
	// maxDropped bounds the connections that were dropped and whose
	// goroutines have not ended yet.
	maxDropped = 64
)

// guard is a listener that bounds the connections of an HTTP server. It
// accepts at once, so that the kubelet does not wait behind others, and closes
// what is too much: of the callers that are not the kubelet, first the
// connection that has waited the longest for a request or the rest of it, then
// the one that has been answered for the longest. Blocked hooks are kept; where
// there is nothing else to close, the new connection is.
type guard struct {
	net.Listener
	kubelet func(netip.Addr) bool // reports whether the kubelet calls from it

	mu      sync.Mutex // guards everything that follows, and each conn's state
	open    []*conn    // in the order of their arrival
	dropped int        // those closed by the guard that the server still has
	refused rateLimitedLog
}

func newGuard(l net.Listener, kubelet func(netip.Addr) bool) *guard {
	return &guard{Listener: l, kubelet: kubelet}
}

// Accept returns the next connection that there is room for.
func (g *guard) Accept() (net.Conn, error) {
	for {
		accepted, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, guard: g, from: addressOf(accepted), since: time.Now()}
		c.ofKubelet = c.from.IsValid() && g.kubelet(c.from)
		if g.admit(c) {
			return c, nil
		}
		abort(accepted)
	}
}

// admit makes room for c, and reports whether there is some.
func (g *guard) admit(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	same, others := 0, 0
	for _, o := range g.open {
		if o.from == c.from && o.ofKubelet == c.ofKubelet {
			same++
		}
		if !o.ofKubelet {
			others++
		}
	}
	sameAddress := func(o *conn) bool { return o.from == c.from && o.ofKubelet == c.ofKubelet }
	ok := true
	switch {
	case c.ofKubelet && same >= maxKubelet:
		ok = g.dropLocked(sameAddress)
	case c.ofKubelet:
	case same >= maxPerAddress && !c.from.IsLoopback() && c.from.IsValid():
		ok = g.dropLocked(sameAddress)
	case others >= maxOthers:
		ok = g.dropLocked(func(o *conn) bool { return !o.ofKubelet })
	}
	if ok {
		g.open = append(g.open, c)
		return true
	}
	if g.refused.may(time.Now()) {
		slog.Warn("http: refused a connection, there are too many; a NetworkPolicy can keep callers away", "caller", c.from.String(), "open", len(g.open))
	}
	return false
}

// dropLocked closes one connection among those that which selects, and reports
// whether there was one that may be closed.
func (g *guard) dropLocked(which func(*conn) bool) bool {
	if g.dropped >= maxDropped {
		return false
	}
	var victim *conn
	for _, c := range g.open {
		if c.state != hooked && which(c) && (victim == nil || c.before(victim)) {
			victim = c
		}
	}
	if victim == nil {
		return false
	}
	g.removeLocked(victim)
	victim.state = closedByGuard
	g.dropped++
	abort(victim.Conn)
	return true
}

// received records that a part of a request has come.
func (g *guard) received(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state != waiting {
		return
	}
	c.state, c.since = partial, time.Now()
	n := 0
	for _, o := range g.open {
		if o.state == partial {
			n++
		}
	}
	if n <= maxPartial {
		return
	}
	half := func(o *conn) bool { return o.state == partial }
	if !g.dropLocked(func(o *conn) bool { return half(o) && !o.ofKubelet }) {
		g.dropLocked(half)
	}
}

// changed follows the server's states; it is an [http.Server]'s ConnState.
func (g *guard) changed(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case state == http.StateClosed && c.state == closedByGuard:
		g.dropped--
	case state == http.StateClosed:
		g.removeLocked(c)
	case c.state == closedByGuard:
	case state == http.StateActive: // the request's header was read, or refused
		c.state, c.since = answering, time.Now()
	case state == http.StateIdle:
		c.state, c.since = waiting, time.Now()
	}
}

func (g *guard) removeLocked(c *conn) {
	if i := slices.Index(g.open, c); i >= 0 {
		g.open = slices.Delete(g.open, i, i+1)
	}
}

// rateLimitedLog bounds how often something is logged that callers cause.
type rateLimitedLog struct{ last time.Time }

// may reports whether it may be logged now.
func (l *rateLimitedLog) may(now time.Time) bool {
	if !l.last.IsZero() && now.Sub(l.last) < logRefusalsEvery {
		return false
	}
	l.last = now
	return true
}

// before reports whether c is closed before o: those that wait before those
// that are answered, and of these the one that is so for longer.
func (c *conn) before(o *conn) bool {
	return cmp.Or(cmp.Compare(c.rank(), o.rank()), c.since.Compare(o.since)) < 0
}
