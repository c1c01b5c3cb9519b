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
	Count   string  `envconfig:"LASTCALL_TCP_COUNT" default:"auto" desc:"requests: connections on which a request waits for its answer (HTTP/1); active: also those that were not silent for LASTCALL_TCP_SILENCE (HTTP/2, gRPC, WebSockets); open: all on which anything was ever received; auto: requests where the app's port is found to speak only HTTP/1, active otherwise"`
	Silence Silence `envconfig:"LASTCALL_TCP_SILENCE" default:"auto" desc:"how long a connection in doubt must be silent to count as idle: a duration, or auto: learned from the app's answers"`
}

// The values of LASTCALL_TCP_COUNT.
const (
	Auto     = "auto"     // Requests or Active, depending on what the port speaks
	Requests = "requests" // connections on which a request waits for its answer
	Active   = "active"   // also connections that were not silent for long enough
	Open     = "open"     // all connections on which anything was ever received
)

// Silence is how long a connection in doubt must be silent to count as idle.
// The zero value means that it counts as idle at once.
type Silence struct {
	Auto     bool // learned from the app's answers
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
	// tick is the longest of the kernel's clock ticks, in which it reports
	// ages.
	tick = 10 * time.Millisecond
)

// Counter is a drain.Counter, a drain.Notifier and a drain.Learner.
type Counter struct {
	ports    []int
	mode     string
	patience patience
	table    procnet.Table // read if the diagnostics are refused
	ownEnds  func(ports []int) map[netip.AddrPort]bool
	asked    ownQuestions // the sidecar's own connections that ask what a port speaks
	base     time.Time    // times are counted from here
	know     knowledge    // has its own lock
	watching atomic.Int32 // how many goroutines record the ends of all connections

	// busy holds a token during a reading. It guards everything below.
	busy    *semaphore.Weighted
	diag    diagnostics
	blind   bool // the diagnostics are refused
	known   map[uint64]*memory
	views   map[int]*view // by port
	tries   uint32        // checks that were begun
	look    uint32        // the last check that was completed; 0: none
	lookAt  time.Time     // when it began
	arrived uint64
	doubts  chan int // ports to be asked what they speak, while Learn runs
	walk    walk
	probes  probes // its addresses have their own lock
}

// New returns a counter of the work on the app's ports. It asks nothing yet.
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
		busy:     semaphore.NewWeighted(1),
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

// speaks records what a port was found to speak.
func (c *Counter) speaks(port int, p protocol) {
	v := c.views[port]
	v.port, v.mode, v.asking = p, c.mode, false
	for _, m := range c.known {
		if p.tls && m.port == port && m.recv > 0 && !m.settled && (m.activity == answered || m.activity == waiting && m.sent > 0 && m.dataIn <= tlsOpening) {
			if m.settled = min(m.dataIn, m.dataOut) >= handshakeFlights; !m.settled {
				m.activity = handshake // it may have been the handshake
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

// lock waits for busy, which a check holds for as long as it takes.
func (c *Counter) lock()   { _ = c.busy.Acquire(context.Background(), 1) }
func (c *Counter) unlock() { c.busy.Release(1) }

// Count checks the app's connections. If the kernel's diagnostics are refused,
// it counts all of them as work and does not report arrivals.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.busy.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("counting the app's connections: an earlier reading has not ended: %w", err)
	}
	defer c.unlock()
	r, err := c.read(ctx)
	if err != nil {
		return drain.Reading{}, fmt.Errorf("counting the app's connections: %w", err)
	}
	return r, nil
}

// read is Count for a caller that holds busy.
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
		slog.WarnContext(ctx, "tcp: the kernel's socket diagnostics are refused: each open connection to the app counts as work, even if it is idle, until it is closed; "+
			"allow netlink sockets (AF_NETLINK) in the seccomp profile, or use another counter", "error", err)
	}
	n, err := c.fromTable()
	return drain.Reading{InFlight: n}, err
}

// diagnose checks by the kernel's diagnostics. If there can be no connections
// but the known ones, it asks for these one by one; otherwise it walks through
// the kernel's table.
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
		// A connection was not found. The walk shows whether it is gone.
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

// reading is one check of the app's connections.
type reading struct {
	*Counter
	number   uint32
	began    time.Time
	own      *ownSockets
	inFlight int64
	open     int64
}

// newReading begins a reading. A reading that is cut short also has its own
// number: the next one must not skip the connections that it has seen.
func (c *Counter) newReading(began time.Time) reading {
	c.tries++
	now := began.Sub(c.base).Milliseconds()
	for _, v := range c.views {
		v.now = now
	}
	return reading{Counter: c, number: c.tries, began: began, own: c.own()}
}

// see records one connection.
func (r *reading) see(s *socket) error {
	v := r.views[s.port]
	if connected&(1<<s.state) == 0 || v == nil {
		return nil // there is nothing left to do on this connection
	}
	if !s.info {
		return fmt.Errorf("%w: a connection without its tcp_info", errGarbled)
	}
	m, seen := r.known[s.cookie]
	switch {
	case seen && m.look == r.number:
		return nil // reported twice, because the kernel's table has changed meanwhile
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

// question requests that a port be asked what it speaks, when its first client
// has come. It requests this once more, with TLS, when a client may have made a
// handshake.
func (r *reading) question(s *socket, v *view) {
	if v.asking || v.port.asked && (!v.port.mayBeTLS || s.dataIn < tlsOpening) {
		return
	}
	select {
	case r.doubts <- s.port:
		v.asking = true
	default: // Learn does not run
	}
}

// end forgets the connections that were not seen. If a client was waiting for
// an answer when its connection ended, the answer may have come at that moment.
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

// ended records that the kernel has destroyed one of the app's sockets. Nothing
// else shows what came on it since the last check.
func (c *Counter) ended(s *socket) {
	c.lock()
	defer c.unlock()
	v := c.views[s.port]
	if c.look == 0 || s.remote.Port() == 0 || v == nil { // a listening socket has no peer
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
			c.arrived++ // more than the end of the connection
		}
	case c.asked.has(s.remote), time.Duration(s.recvAge)*time.Millisecond > now.Sub(c.lookAt)+tick:
	case !c.probes.cameAndWent(s, now):
		teachEnd(nil, s, v)
		c.arrived++ // the connection began and ended since the last check
	}
}

// fromTable counts the connections in /proc/net/tcp that are not over.
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
// They are looked up when first needed.
type ownSockets struct {
	asked *ownQuestions
	look  func() map[netip.AddrPort]bool
	ends  map[netip.AddrPort]bool
}

func (c *Counter) own() *ownSockets {
	return &ownSockets{asked: &c.asked, look: func() map[netip.AddrPort]bool { return c.ownEnds(c.ports) }}
}

// has reports whether the peer of s is the sidecar.
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
