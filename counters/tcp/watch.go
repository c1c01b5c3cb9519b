package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"lastcall/drain"
)

// The kernel does not report that a request on an open connection has begun or
// ended. So the connections are checked repeatedly.
const (
	// afterChange is the pause after a check that has shown a change.
	afterChange = 10 * time.Millisecond
	// whileBusy is the longest pause while something is in flight. It limits
	// how late its end is seen.
	whileBusy = 20 * time.Millisecond
	// whileIdle is the longest pause otherwise. It limits how late an arrival
	// is seen, after which the quiet time begins again.
	whileIdle = 40 * time.Millisecond
	// lookShare limits the cost of the checks: a check that took 1 ms is
	// followed by a pause of at least lookShare ms.
	lookShare = 50
	// atLeastEvery is the longest pause, even if checks take long. This matters
	// if the app has some 10,000 connections or more.
	atLeastEvery = time.Second
	// lookLimit is how long one reading may take.
	lookLimit = 2 * time.Second
)

// Changed reports changes on the returned channel until ctx ends. It checks for
// them every 10 to 40 ms, or less often if a reading takes long: the checks use
// at most 2 % of one processor, or happen once a second. If the kernel permits,
// it also reports each connection that is closed at once, including those that
// began and ended between two checks.
func (c *Counter) Changed(ctx context.Context) <-chan struct{} {
	changed, look := make(chan struct{}, 1), make(chan struct{}, 1)
	if err := c.watchEnds(ctx, look); err != nil {
		slog.DebugContext(ctx, "tcp: the kernel does not report the ends of connections; they are found by polling instead", "error", err)
	}
	go c.watch(ctx, look, changed)
	return changed
}

// watch checks repeatedly, and sooner when look receives.
func (c *Counter) watch(ctx context.Context, look <-chan struct{}, changed chan<- struct{}) {
	var last drain.Reading
	var p pace
	lastFailed, first := false, true
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-look:
			if rest := time.Until(p.earliest); rest > 0 {
				timer.Reset(rest)
				continue
			}
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, lookLimit)
		r, err := c.Count(limited)
		cancel()
		failed := err != nil
		news := first || failed != lastFailed || r != last
		last, lastFailed, first = r, failed, false
		if news {
			notify(changed)
		}
		timer.Reset(p.next(began, time.Now(), news, failed || r.InFlight > 0))
	}
}

// pace determines when to check again.
type pace struct {
	pause    time.Duration
	took     time.Duration
	earliest time.Time // earliest time of the next check, whatever happens
}

// next returns the pause after a check. A check may have taken long because it
// waited for a processor, so the shorter of the last two durations is used.
func (p *pace) next(began, ended time.Time, news, busy bool) time.Duration {
	took := ended.Sub(began)
	rest := min(lookShare*min(took, p.took), atLeastEvery)
	p.took, p.earliest = took, ended.Add(rest)
	switch {
	case news:
		p.pause = afterChange
	case busy:
		p.pause = min(2*p.pause, whileBusy)
	default:
		p.pause = min(2*p.pause, whileIdle)
	}
	return max(p.pause, rest)
}

// watchEnds sends to look when a connection of the app has ended, until ctx
// ends. The kernel reports this to any process that subscribes.
func (c *Counter) watchEnds(ctx context.Context, look chan<- struct{}) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	c.watching.Add(1)
	if err := subscribe(conn, c.ports); err != nil {
		c.watching.Add(-1)
		_ = conn.Close() // it holds nothing
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends Receive
	go func() {
		defer c.watching.Add(-1)
		defer stop()
		defer func() { _ = conn.Close() }() // it may already be closed
		for ctx.Err() == nil {
			messages, err := conn.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS):
				// Too many at once, and some reports are lost: the next check
				// will see the changes.
			case err != nil:
				if ctx.Err() == nil {
					slog.DebugContext(ctx, "tcp: the kernel no longer reports the ends of connections; they are found by polling instead", "error", err)
				}
				return
			}
			for _, m := range messages {
				var s socket
				if err := s.parse(m.Data); err == nil {
					c.ended(&s)
				}
			}
			notify(look)
		}
	}()
	return nil
}

// subscribe subscribes to the ends of connections on ports, and of no others.
func subscribe(conn *netlink.Conn, ports []int) error {
	filter, err := bpf.Assemble(endsFilter(ports))
	if err != nil {
		return fmt.Errorf("making a filter of the ports: %w", err)
	}
	if err := conn.SetBPF(filter); err != nil {
		return fmt.Errorf("filtering by ports: %w", err)
	}
	for _, group := range []uint32{unix.SKNLGRP_INET_TCP_DESTROY, unix.SKNLGRP_INET6_TCP_DESTROY} {
		if err := conn.JoinGroup(group); err != nil {
			return fmt.Errorf("subscribing to the ends of connections: %w", err)
		}
	}
	return nil
}

// endsFilter accepts the messages whose local port is one of ports. The port is
// four bytes after the message's header.
func endsFilter(ports []int) []bpf.Instruction {
	const headerSize, all = 16, 1 << 16
	filter := []bpf.Instruction{bpf.LoadAbsolute{Off: headerSize + 4, Size: 2}}
	for i, port := range ports {
		filter = append(filter, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: uint8(len(ports) - i)}) //nolint:gosec // at most maxPorts, valid ports
	}
	return append(filter, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: all})
}

// notify sends without blocking. Several notifications that nobody has received
// yet become one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
