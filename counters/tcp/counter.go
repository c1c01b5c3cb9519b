package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"lastcall/drain"
	"lastcall/internal/procnet"
)

// Config is the counter's part of the environment.
type Config struct {
	Count   string  `envconfig:"LASTCALL_TCP_COUNT" default:"auto" desc:"requests: connections on which a request waits for its answer (HTTP/1); active: also those that were not silent for LASTCALL_TCP_SILENCE (HTTP/2, gRPC, WebSockets); open: all on which anything was ever received; auto: requests where the app's port is found to speak HTTP/1 alone, active otherwise"`
	Silence Silence `envconfig:"LASTCALL_TCP_SILENCE" default:"auto" desc:"how long a connection in doubt must be silent to count as idle: a duration, or auto: learned from the app's answers"`
}

// What LASTCALL_TCP_COUNT may be.
const (
	Auto     = "auto"     // Requests or Active, by what the port speaks
	Requests = "requests" // connections on which a request waits for its answer
	Active   = "active"   // and those that were not silent for long enough
	Open     = "open"     // all on which anything was ever received
)

// Silence is how long a connection in doubt must be silent to count as idle.
// The zero value is no time at all.
type Silence struct {
	Auto     bool // as long as was learned
	Duration time.Duration
}

// UnmarshalText reads a duration, or auto.
func (s *Silence) UnmarshalText(text []byte) error {
	*s = Silence{Auto: string(text) == Auto}
	if s.Auto {
		return nil
	}
	var err error
	if s.Duration, err = time.ParseDuration(string(text)); err != nil {
		return fmt.Errorf("%q: must be auto, or a duration such as 5s", text)
	}
	return nil
}

func (s Silence) String() string {
	if s.Auto {
		return Auto
	}
	return s.Duration.String()
}

const (
	// maxPorts bounds the app's ports.
	maxPorts = 64
	// maxSockets bounds the app's connections, each of which is remembered.
	maxSockets = 1 << 20
	// tick is the longest of the kernel's ticks, in which it tells ages.
	tick = 10 * time.Millisecond
)

// Counter is a drain.Counter, a drain.Notifier and a drain.Learner.
type Counter struct {
	ports    []int
	mode     string
	patience patience
	table    procnet.Table // what is read where the diagnostics are refused
	ownEnds  func(ports []int) map[netip.AddrPort]bool
	asked    ownQuestions // the sidecar's own connections that ask what a port speaks
	base     time.Time    // from which times are counted
	know     knowledge    // has a lock of its own
	watching atomic.Int32 // who takes in the ends of all connections

	// turn holds a token while a reading is under way. It guards what follows.
	turn    *semaphore.Weighted
	diag    diagnostics
	blind   bool // the diagnostics are refused
	known   map[uint64]*memory
	views   map[int]*view // by port
	tries   uint32        // looks begun
	look    uint32        // the last of them that was not cut short; 0: there was none
	lookAt  time.Time     // when it began
	arrived uint64
	doubts  chan int // ports that are to be asked what they speak, while Learn runs
	walk    walk
	probes  probes // its addresses have a lock of their own
}

// New makes the counter of the work on the app's ports, and asks nothing yet.
func New(cfg Config, ports ...int) (*Counter, error) {
	var mistakes []error
	if cfg.Count != Auto && cfg.Count != Requests && cfg.Count != Active && cfg.Count != Open {
		mistakes = append(mistakes, fmt.Errorf("LASTCALL_TCP_COUNT=%q: must be %s, %s, %s or %s", cfg.Count, Auto, Requests, Active, Open))
	}
	if cfg.Silence.Duration < 0 {
		mistakes = append(mistakes, fmt.Errorf("LASTCALL_TCP_SILENCE=%v: must not be negative, such as 5s", cfg.Silence))
	}
	if !validPorts(ports) {
		mistakes = append(mistakes, fmt.Errorf("LASTCALL_APP_PORT must be set to the ports on which the app is reached for its connections to be counted, from 1 to 65535, each once, such as 8080 or 8080,8443 (%d at most)", maxPorts))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	c := &Counter{
		ports:    ports,
		mode:     cfg.Count,
		patience: patience{auto: cfg.Silence.Auto, fixed: cfg.Silence.Duration},
		table:    procnet.Kernel(),
		ownEnds:  ownEnds,
		base:     time.Now(),
		turn:     semaphore.NewWeighted(1),
		known:    make(map[uint64]*memory),
		views:    make(map[int]*view),
		walk:     walk{accepted: procnet.KernelStatistics().Accepted},
	}
	for _, port := range ports {
		c.views[port] = &view{patience: c.patience, learned: new(learned)}
		c.speaks(port, protocol{})
	}
	return c, nil
}

// speaks takes in what a port was found to speak.
func (c *Counter) speaks(port int, p protocol) {
	v := c.views[port]
	v.port, v.mode, v.asking = p, c.mode, false
	for _, m := range c.known {
		if p.tls && m.port == port && m.recv > 0 && !m.settled && (m.activity == answered || m.activity == waiting && m.sent > 0 && m.dataIn <= tlsOpening) {
			if m.settled = min(m.dataIn, m.dataOut) >= handshakeFlights; !m.settled {
				m.activity = handshake // as it may have been
			}
		}
	}
	if c.mode == Auto {
		v.mode = Active
		if p.http1 && !p.mayBeTLS {
			v.mode = Requests
		}
	}
}

func validPorts(ports []int) bool {
	for i, port := range ports {
		if port < 1 || port > 65535 || slices.Contains(ports[:i], port) {
			return false
		}
	}
	return len(ports) > 0 && len(ports) <= maxPorts
}

// lock waits for the turn, which a look holds, for as long as it takes.
func (c *Counter) lock()   { _ = c.turn.Acquire(context.Background(), 1) }
func (c *Counter) unlock() { c.turn.Release(1) }

// Count looks at the app's connections. Where the kernel's diagnostics are
// refused it counts all of them as work, and cannot tell arrivals.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.turn.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("counting the app's connections: an earlier reading has not ended: %w", err)
	}
	defer c.unlock()
	r, err := c.read(ctx)
	if err != nil {
		return drain.Reading{}, fmt.Errorf("counting the app's connections: %w", err)
	}
	return r, nil
}

// read has the turn.
func (c *Counter) read(ctx context.Context) (drain.Reading, error) {
	if err := ctx.Err(); err != nil {
		return drain.Reading{}, err
	}
	if !c.blind {
		r, err := c.diagnose(ctx)
		if !refused(err) {
			return r, err
		}
		c.blind, c.known = true, nil
		slog.WarnContext(ctx, "tcp: the kernel's socket diagnostics are refused: each open connection to the app counts as work, also an idle one, until it is closed; "+
			"allow netlink sockets (AF_NETLINK) in the seccomp profile, or use another counter", "error", err)
	}
	n, err := c.fromTable()
	return drain.Reading{InFlight: n}, err
}

// diagnose looks by the kernel's diagnostics: at the connections that are
// known, one by one, where there can be no others; or for all that there are.
func (c *Counter) diagnose(ctx context.Context) (drain.Reading, error) {
	began := time.Now()
	if c.walk.sure(began) {
		r, ids, shown := c.newReading(began), c.walk.again(c.known), 0
		err := c.diag.each(ctx, ids, func(s *socket) error {
			shown++
			return r.see(s)
		})
		switch {
		case ctx.Err() != nil:
			return drain.Reading{}, ctx.Err()
		case err == nil && shown == len(ids):
			return r.end(), nil
		}
		// One was not found: that it has gone is for the walk to say.
	}
	r := c.newReading(began)
	c.walk.begin()
	err := c.diag.dump(ctx, c.ports, connected, func(s *socket) error {
		c.walk.found(s)
		return r.see(s)
	})
	if err != nil {
		return drain.Reading{}, err
	}
	c.walk.end(began)
	return r.end(), nil
}

// reading is one look at the app's connections.
type reading struct {
	*Counter
	number   uint32
	began    time.Time
	own      *ownSockets
	inFlight int64
	open     int64
}

// newReading begins one. One that is cut short has its own number too: what it
// has seen is not to be passed over by the next.
func (c *Counter) newReading(began time.Time) reading {
	c.tries++
	now := began.Sub(c.base).Milliseconds()
	for _, v := range c.views {
		v.now = now
	}
	return reading{Counter: c, number: c.tries, began: began, own: c.own()}
}

// see takes in one connection.
func (r *reading) see(s *socket) error {
	v := r.views[s.port]
	if connected&(1<<s.state) == 0 || v == nil {
		return nil // there is nothing left to do on it
	}
	if !s.info {
		return fmt.Errorf("%w: a connection without its tcp_info", errGarbled)
	}
	m, seen := r.known[s.cookie]
	switch {
	case seen && m.look == r.number:
		return nil // shown twice, because the kernel's table has changed meanwhile
	case !seen && len(r.known) >= maxSockets:
		return fmt.Errorf("the app has more than %d connections", maxSockets)
	case !seen:
		first := fresh()
		m = &first
		m.own = r.own.has(s)
		r.known[s.cookie] = m
		if r.look > 0 && !m.own {
			r.probes.began(s, r.began)
		}
	}
	probe, outgrown := r.probes.holds(s.cookie, r.began)
	before, known := *m, seen || r.look > 0
	arrived := m.next(s, known, v)
	m.look = r.number
	if m.own || probe {
		return nil
	}
	r.question(s, v)
	m.teach(&before, s, known, v)
	if r.look > 0 && (!seen || outgrown || arrived) {
		r.arrived++
	}
	if s.state == established {
		r.open++
	}
	if m.work(s, v) {
		r.inFlight++
	}
	return nil
}

// question has a port asked what it speaks when the first client has come to
// it, and once more, by TLS, when a client may have made a handshake.
func (r *reading) question(s *socket, v *view) {
	if v.asking || v.port.asked && (!v.port.mayBeTLS || s.dataIn < tlsOpening) {
		return
	}
	select {
	case r.doubts <- s.port:
		v.asking = true
	default: // nobody asks
	}
}

// end forgets the connections that were not seen. What a client waited for
// when it went away may have been answered in that moment.
func (r *reading) end() drain.Reading {
	for cookie, m := range r.known {
		if m.look == r.number {
			continue
		}
		if probe := r.probes.ended(cookie); !probe && !m.own && m.activity == waiting {
			v := r.views[m.port]
			v.learned.seen(1, v.since(m.recvAt), v.now)
		}
		delete(r.known, cookie)
	}
	r.look, r.lookAt = r.number, r.began
	r.publish()
	return drain.Reading{InFlight: r.inFlight, Arrived: r.arrived, HasArrived: true, Open: r.open, HasOpen: true}
}

// ended takes in that the kernel has destroyed one of the app's sockets: what
// came on it since the last look was never seen otherwise.
func (c *Counter) ended(s *socket) {
	c.lock()
	defer c.unlock()
	v := c.views[s.port]
	if c.look == 0 || s.remote.Port() == 0 || v == nil { // a listening one has no peer
		return
	}
	now := time.Now()
	v.now = now.Sub(c.base).Milliseconds()
	m, seen := c.known[s.cookie]
	switch {
	case seen:
		delete(c.known, s.cookie)
		if probe := c.probes.ended(s.cookie); probe || m.own {
			return
		}
		teachEnd(m, s, v)
		if s.recv > m.recv+farewellMaximum {
			c.arrived++ // more than its end
		}
	case c.asked.has(s.remote), time.Duration(s.recvAge)*time.Millisecond > now.Sub(c.lookAt)+tick:
	case !c.probes.cameAndWent(s, now):
		teachEnd(nil, s, v)
		c.arrived++ // it was made, and ended, since the last look
	}
}

// fromTable counts the connections in /proc/net/tcp: all that are not over.
func (c *Counter) fromTable() (int64, error) {
	var n int64
	own := c.own()
	for _, port := range c.ports {
		remotes, err := c.table.Unfinished(port)
		if err != nil {
			return 0, err
		}
		for text := range remotes {
			remote, ok := parseRemote(text)
			if !ok || !own.holds(remote) {
				n++
			}
		}
	}
	return n, nil
}

// ownSockets are the sidecar's own connections to the app, which are not work.
// They are looked up when first asked for.
type ownSockets struct {
	asked *ownQuestions
	look  func() map[netip.AddrPort]bool
	ends  map[netip.AddrPort]bool
}

func (c *Counter) own() *ownSockets {
	return &ownSockets{asked: &c.asked, look: func() map[netip.AddrPort]bool { return c.ownEnds(c.ports) }}
}

// has reports whether the sidecar is the peer of s.
func (o *ownSockets) has(s *socket) bool {
	if s.remote.Addr() != s.local && !s.remote.Addr().IsLoopback() {
		return false // from another pod
	}
	return o.holds(s.remote)
}

func (o *ownSockets) holds(remote netip.AddrPort) bool {
	if o.ends == nil {
		o.ends = o.look()
	}
	return o.ends[remote] || o.asked.has(remote)
}
