package server

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits of connections. With the maximum cost of a connection of each kind
// (see docs/security.md), they fit into the memory limit of deploy/.
const (
	// maxOthers bounds the connections of all callers but the kubelet.
	maxOthers = 256
	// maxPerAddress bounds the connections of one address. Loopback addresses
	// have no such bound: a mesh's proxy makes everybody's calls from one.
	maxPerAddress = 64
	// maxKubelet bounds the connections of one of the kubelet's addresses. The
	// kubelet makes one for each probe, and one for each hook that blocks.
	maxKubelet = 32
	// maxPartial bounds the connections whose header is being read or is held
	// in memory. The kubelet's connections have their own bound,
	// maxKubeletPartial. Headers of many short lines take twenty times their
	// length in memory.
	maxPartial        = 32
	maxKubeletPartial = 8
	// partialLimit is how long a connection may take to send its header while
	// other connections wait for their turn.
	partialLimit = 50 * time.Millisecond
	// maxDropped bounds the connections that the guard has closed and whose
	// goroutines have not ended yet.
	maxDropped = 64
)

// maxPartials returns the bound of a class.
func maxPartials(class int) int { return [...]int{maxPartial, maxKubeletPartial}[class] }

// guard is a listener that limits the connections of an HTTP server. Each
// connection carries one request. The guard accepts connections at once, so
// that the kubelet does not wait behind other callers. When a limit is reached,
// it closes a connection, but never one of the kubelet's for another caller.
// First comes the connection whose caller has kept the server waiting for the
// longest, then the one that has been answered for the longest. Connections
// with a blocked hook are kept. If nothing else can be closed, the new
// connection is closed.
type guard struct {
	net.Listener
	kubelet func(netip.Addr) bool // reports whether the kubelet calls from this address

	mu      sync.Mutex // guards everything that follows, and each conn's state
	open    []*conn    // in the order of their arrival
	dropped int        // connections that the guard has closed and the server still holds
	partial [2]int     // connections whose header is being read or held, by class
	queue   [2][]*conn // connections that wait for their header to be read, by class
	refused rateLimitedLog
}

func newGuard(l net.Listener, kubelet func(netip.Addr) bool) *guard {
	return &guard{Listener: l, kubelet: kubelet}
}

// Accept returns the next connection for which there is room.
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
		g.logRefusal(c)
	}
}

// logRefusal logs that a connection was refused, at a limited rate.
func (g *guard) logRefusal(c *conn) {
	g.mu.Lock()
	may, open := g.refused.may(time.Now()), len(g.open)
	g.mu.Unlock()
	if may { // without the lock: writing the log may be slow
		slog.Warn("http: refused a connection, there are too many; a NetworkPolicy can keep callers away", "caller", c.from.String(), "open", open)
	}
}

// admit makes room for c, and reports whether there is room.
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
	ok := true // if c is below the limits
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
	return false
}

// dropLocked closes one of the connections that which selects, and reports
// whether it has closed one.
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

// begin is called when a part of a request's header has arrived. It waits until
// the header may be read, in the order of arrival. It reports whether the
// header may be read: the connection may have been closed meanwhile.
func (g *guard) begin(c *conn) bool {
	if !g.queued(c) {
		return c.mayRead()
	}
	slow := time.NewTicker(partialLimit)
	defer slow.Stop()
	for {
		g.dropSlow(c.class())
		select {
		case <-c.next:
			return c.mayRead()
		case <-slow.C:
		}
	}
}

// queued reports whether c has to wait for its turn.
func (g *guard) queued(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state != waiting {
		return false
	}
	c.next = make(chan struct{})
	g.queue[c.class()] = append(g.queue[c.class()], c)
	g.nextLocked(c.class())
	return c.state == waiting
}

// nextLocked lets waiting connections read their headers while there is room.
func (g *guard) nextLocked(class int) {
	for len(g.queue[class]) > 0 && g.partial[class] < maxPartials(class) {
		c := g.queue[class][0]
		g.queue[class] = slices.Delete(g.queue[class], 0, 1)
		c.state, c.since, c.holdsHeader, c.lacks = partial, time.Now(), true, false
		g.partial[class]++
		close(c.next)
	}
}

// reads records that the server continues to read: the header is not complete.
func (g *guard) reads(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state == partial && !c.lacks {
		c.lacks, c.since = true, time.Now()
	}
}

// dropSlow closes the connection whose header has been incomplete for the
// longest, if that is at least partialLimit. A connection that has sent its
// whole header waits only for the processor, and is kept.
func (g *guard) dropSlow(class int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.dropLocked(func(c *conn) bool {
		return c.state == partial && c.lacks && c.class() == class && now.Sub(c.since) >= partialLimit
	})
}

// headerDropped records that c's header is no longer held in memory.
func (g *guard) headerDropped(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.releaseLocked(c)
	if c.state == partial {
		c.state, c.since = answering, time.Now()
	}
}

func (g *guard) releaseLocked(c *conn) {
	if c.holdsHeader {
		c.holdsHeader = false
		g.partial[c.class()]--
		g.nextLocked(c.class())
	}
}

// leaves records that the server has nothing more to send on c. It reports
// whether it may be necessary to wait for the caller.
func (g *guard) leaves(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.releaseLocked(c)
	if c.state == waiting || c.state >= leaving {
		return false
	}
	c.state, c.since = leaving, time.Now()
	return true
}

// left records that c is closed.
func (g *guard) left(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.releaseLocked(c)
	if c.state == closedByGuard {
		g.dropped--
	}
	g.removeLocked(c)
	c.state = closed
}

// removeLocked forgets c, and ends its wait for a turn.
func (g *guard) removeLocked(c *conn) {
	if i := slices.Index(g.open, c); i >= 0 {
		g.open = slices.Delete(g.open, i, i+1)
	}
	queue := &g.queue[c.class()]
	if i := slices.Index(*queue, c); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
		close(c.next)
	}
}

// rateLimitedLog limits how often a message that callers can cause is logged.
type rateLimitedLog struct{ last time.Time }

// may reports whether the message may be logged now.
func (l *rateLimitedLog) may(now time.Time) bool {
	if !l.last.IsZero() && now.Sub(l.last) < logRefusalsEvery {
		return false
	}
	l.last = now
	return true
}

// before reports whether c is closed before o. Connections whose caller is
// waited for come before those that are being answered. Among equals, the one
// that has been in its state for longer comes first.
func (c *conn) before(o *conn) bool {
	return cmp.Or(cmp.Compare(c.rank(), o.rank()), c.since.Compare(o.since)) < 0
}
