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

// The kernel tells nobody that a request on a connection that stays open has
// ended, nor that one has come: the connections are looked at.
const (
	// afterChange is the pause after a look that has shown something new.
	afterChange = 10 * time.Millisecond
	// whileBusy is the longest pause while something is in flight, and so
	// bounds how late its end is seen.
	whileBusy = 20 * time.Millisecond
	// whileIdle is the longest pause otherwise. What comes then is seen so
	// much later at most, and the quiet time begins again.
	whileIdle = 40 * time.Millisecond
	// lookShare bounds what looks cost: one that took 1 ms is followed by
	// lookShare ms without one.
	lookShare = 50
	// atLeastEvery is how often it is looked however long that takes, which
	// matters from some 10,000 connections of the app on.
	atLeastEvery = time.Second
	// lookLimit is how long one reading may take.
	lookLimit = 2 * time.Second
)

// Changed tells of changes from its return until ctx ends. It looks for them
// every 10 to 40 ms, or more seldom where a reading takes long, so that it takes
// 2 % of one processor, or is one reading a second. When a connection is closed the kernel tells it at once,
// where it may, and also of those that came and went between two looks.
func (c *Counter) Changed(ctx context.Context) <-chan struct{} {
	changed, look := make(chan struct{}, 1), make(chan struct{}, 1)
	if err := c.watchEnds(ctx, look); err != nil {
		slog.DebugContext(ctx, "tcp: the kernel does not tell the ends of connections; they are looked for instead", "error", err)
	}
	go c.watch(ctx, look, changed)
	return changed
}

// watch looks again and again, and sooner when look receives.
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

// pace tells when to look again.
type pace struct {
	pause    time.Duration
	took     time.Duration
	earliest time.Time // of the next look, whatever happens
}

// next returns the pause after a look. What one took may be the wait for a
// processor, so that the shorter of the last two is reckoned with.
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

// watchEnds has look receive when a connection of the app has ended, until ctx
// ends. The kernel tells it to anybody who asks.
func (c *Counter) watchEnds(ctx context.Context, look chan<- struct{}) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	c.watching.Add(1)
	if err := subscribe(conn, c.ports); err != nil {
		c.watching.Add(-1)
		_ = conn.Close() // nothing is in it
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends Receive
	go func() {
		defer c.watching.Add(-1)
		defer stop()
		defer func() { _ = conn.Close() }() // it may be closed already
		for ctx.Err() == nil {
			messages, err := conn.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS):
				// Too many at once, and some are lost: a look is due anyway.
			case err != nil:
				if ctx.Err() == nil {
					slog.DebugContext(ctx, "tcp: the kernel no longer tells the ends of connections; they are looked for instead", "error", err)
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

// subscribe asks for the ends of connections on ports, and no others.
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

// endsFilter takes the messages whose local port, behind the header of the
// message and four bytes, is one of ports.
func endsFilter(ports []int) []bpf.Instruction {
	const headerSize, all = 16, 1 << 16
	filter := []bpf.Instruction{bpf.LoadAbsolute{Off: headerSize + 4, Size: 2}}
	for i, port := range ports {
		filter = append(filter, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: uint8(len(ports) - i)}) //nolint:gosec // at most maxPorts, valid ports
	}
	return append(filter, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: all})
}

// notify never blocks: what nobody has taken yet is told once.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
