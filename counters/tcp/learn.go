package tcp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lastcall/drain"
)

const (
	// learnEvery is the minimum time between two checks while the pod serves.
	learnEvery = 250 * time.Millisecond
	// learnNobodyEvery is the same while no client is connected.
	learnNobodyEvery = 2 * time.Second
	// Limits of what these checks may cost: after a check that took 1 ms of
	// processor time, there is no check of its kind for this many ms. Checks of
	// the known connections take 0.033 % of one processor, and walks through
	// the kernel's table 0.01 %.
	lookRest = 3000
	walkRest = 10_000
	// wakeUp is what it costs to wake up for a check, in Go's scheduler and
	// outside the check's own time.
	wakeUp = 100 * time.Microsecond
	// startEvery is how often Learn checks whether the app has restarted.
	startEvery = 5 * time.Second
	// The kernel reports the ends of endsAtOnce connections in each period of
	// endsEvery while the pod serves.
	endsEvery  = 10 * time.Second
	endsAtOnce = 20
	// asksAtOnce bounds how many ports are asked at the same time.
	asksAtOnce = 4
)

// Learn checks the app's connections while the pod serves, and learns from them
// how long the app's answers take. After each start of the app, Learn asks a port
// what it speaks when the port's first client has come. It returns when ctx ends.
func (c *Counter) Learn(ctx context.Context) {
	c.lock()
	c.doubts = make(chan int, len(c.ports))
	c.unlock()
	go c.watchStarts(ctx)
	go c.sampleEnds(ctx)
	var walkAt time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		// The cost of a check is the processor time of this process during the
		// check. So a busy machine does not make a check appear more expensive
		// than it is, and the work of Go's scheduler for the check is included.
		before := processTime()
		looked, some, err := c.glance(ctx, !time.Now().Before(walkAt))
		took := processTime() - before
		pause := learnEvery
		if !some {
			pause = learnNobodyEvery
		}
		switch looked {
		case atAll:
			walkAt = time.Now().Add(walkRest * took)
		case atKnown:
			pause = max(pause, lookRest*(took+wakeUp))
		case atNothing:
			pause = max(pause, time.Until(walkAt))
		}
		if err != nil {
			pause = max(pause, time.Second)
		}
		timer.Reset(pause)
	}
}

// processTime returns the processor time that this process has used so far.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// sampleEnds lets the kernel report connections that end, all of them if they
// are few. Connections that a client opens for a single request rarely exist
// during a check.
func (c *Counter) sampleEnds(ctx context.Context) {
	ticker := time.NewTicker(endsEvery)
	defer ticker.Stop()
	for {
		window, cancel := context.WithTimeout(ctx, endsEvery)
		err := c.receiveEnds(window, endsAtOnce)
		cancel()
		if err != nil {
			return // this kernel does not report them
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// receiveEnds records up to most ends of connections until ctx ends.
func (c *Counter) receiveEnds(ctx context.Context, most int) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it may already be closed
	if err := subscribe(conn, c.ports); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends Receive
	defer stop()
	for n := 0; n < most && ctx.Err() == nil; {
		messages, err := conn.Receive()
		if err != nil {
			return nil // the window has ended, or some reports were lost
		}
		for _, m := range messages {
			var s socket
			if err := s.parse(m.Data); err != nil {
				continue
			}
			n++
			if c.watching.Load() == 0 { // otherwise each end would be recorded twice
				c.ended(&s)
			}
		}
	}
	return nil
}

// lookedAt is what a glance has checked.
type lookedAt int

const (
	atNothing lookedAt = iota // only a walk through the kernel's table would show more
	atKnown                   // the known connections
	atAll                     // the kernel's table
)

// glance is a check that costs no more than necessary. It checks the known
// connections, or all connections in the kernel's table if some were made and
// mayWalk allows the walk. It reports what it has checked, and whether there
// are any connections.
func (c *Counter) glance(ctx context.Context, mayWalk bool) (looked lookedAt, some bool, err error) {
	if err := c.busy.Acquire(ctx, 1); err != nil {
		return atNothing, false, err
	}
	defer c.unlock()
	if c.blind {
		return atNothing, false, nil // nothing can be learned from /proc/net/tcp
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	began := time.Now()
	switch walk := c.walk.many || !c.walk.unchanged(began); {
	case walk && mayWalk:
		_, err = c.read(ctx)
		return atAll, len(c.known) > 0, err
	case c.walk.many:
		return atNothing, true, nil
	}
	r := c.newReading(began)
	if err := c.diag.each(ctx, c.walk.again(c.known), r.see); err != nil {
		return atKnown, true, err
	}
	r.end()
	return atKnown, len(c.known) > 0, nil
}

// portListener describes who listens on a port.
type portListener struct {
	cookies []uint64 // of its sockets
	address netip.Addr
}

// listeners returns who listens on the app's ports.
func (c *Counter) listeners(ctx context.Context, diag *diagnostics) (map[int]*portListener, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	found := make(map[int]*portListener)
	err := diag.dump(ctx, c.ports, 1<<listen, func(s *socket) error {
		l := found[s.port]
		if l == nil {
			l = &portListener{address: s.local}
			found[s.port] = l
		}
		l.cookies = append(l.cookies, s.cookie)
		return nil
	})
	return found, err
}

// watchStarts forgets what was learned about a port when another app has
// started to listen on it, that is, when none of the earlier listening sockets
// exists any more. It also asks ports what they speak when a check requests it.
func (c *Counter) watchStarts(ctx context.Context) {
	var diag diagnostics
	defer diag.close()
	present := make(map[int]*portListener)
	slots := make(chan struct{}, asksAtOnce)
	ticker := time.NewTicker(startEvery)
	defer ticker.Stop()
	var asked []int // ports to be asked next
	for {
		now, err := c.listeners(ctx, &diag)
		if refused(err) {
			return // then what a port speaks makes no difference either
		}
		for port, l := range now {
			if old := present[port]; old != nil && !l.follows(old) {
				c.forget(port)
			}
			present[port] = l
		}
		for _, port := range asked {
			if l := present[port]; l != nil {
				go c.ask(ctx, port, l.dial(), slots)
			}
		}
		asked = asked[:0]
		select {
		case <-ctx.Done():
			return
		case port := <-c.doubts:
			asked = append(asked, port)
		case <-ticker.C:
		}
	}
}

// follows reports whether one of the sockets of old still exists.
func (l *portListener) follows(old *portListener) bool {
	return slices.ContainsFunc(l.cookies, func(cookie uint64) bool { return slices.Contains(old.cookies, cookie) })
}

// dial returns the address at which the listener can be reached from this pod.
func (l *portListener) dial() netip.Addr {
	switch {
	case !l.address.IsUnspecified():
		return l.address
	case l.address.Is6(): // it accepts IPv4 too, unless configured otherwise
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// forget drops what was learned about the app that listened on a port before.
func (c *Counter) forget(port int) {
	c.lock()
	defer c.unlock()
	c.views[port].learned = new(learned)
	c.speaks(port, protocol{})
}

// ask finds out what a port speaks. It waits for one of the slots.
func (c *Counter) ask(ctx context.Context, port int, at netip.Addr, slots chan struct{}) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return
	}
	c.lock()
	before := c.views[port].port
	c.unlock()
	to := netip.AddrPortFrom(at, uint16(port)) //nolint:gosec // a valid port
	var p protocol
	var err error
	if before.asked {
		p, err = askTLS(ctx, to, c.asked.add, before)
	} else {
		p, err = ask(ctx, to, c.asked.add)
	}
	if err != nil {
		if ctx.Err() == nil {
			slog.WarnContext(ctx, "tcp: the app's port could not be asked what it speaks", "port", port, "error", err)
		}
		p = protocol{asked: true, found: "nothing that is known: it could not be asked"}
	}
	c.lock()
	c.speaks(port, p)
	mode := c.views[port].mode
	c.publish()
	c.unlock()
	slog.InfoContext(ctx, "tcp: the app's port was asked what it speaks", "port", port, "speaks", p.found, "count", mode)
}

// portKnowledge is what was learned about one port.
type portKnowledge struct {
	port    protocol
	mode    string
	answers uint64
	longest time.Duration
	pause   time.Duration // within an answer
	silence time.Duration // 0: too little was seen
}

// publish makes the current knowledge available to Learned. The caller holds
// busy.
func (c *Counter) publish() {
	c.know.mu.Lock()
	defer c.know.mu.Unlock()
	if c.know.ports == nil {
		c.know.ports = make(map[int]portKnowledge, len(c.views))
	}
	for port, v := range c.views {
		k := portKnowledge{port: v.port, mode: v.mode, answers: v.learned.answers, longest: v.learned.longest(), pause: v.learned.pause}
		switch {
		case !c.patience.auto:
			k.silence = c.patience.fixed
		case v.learned.enough(v.now):
			k.silence = v.learned.silence()
		}
		c.know.ports[port] = k
	}
}

// Learned returns what was learned so far. With several ports, Answers is their
// sum, and Longest and Silence are the largest of all ports. Silence is 0 if it
// is not known for every port.
func (c *Counter) Learned() drain.Learned {
	c.know.mu.Lock()
	defer c.know.mu.Unlock()
	var all drain.Learned
	var texts []string
	known := true
	for _, port := range c.ports {
		k := c.know.ports[port]
		all.Answers += k.answers
		all.Longest = max(all.Longest, k.longest)
		all.Silence = max(all.Silence, k.silence)
		known = known && k.silence > 0
		found := k.port.found
		if !k.port.asked {
			found = "nothing that is known yet"
		}
		text := fmt.Sprintf("port %d speaks %s; counts %s", port, found, k.mode)
		if k.pause >= pauseMatters {
			text += fmt.Sprintf("; answers pause for up to %v", k.pause)
		}
		texts = append(texts, text)
	}
	if !known {
		all.Silence = 0
	}
	all.Text = strings.Join(texts, "; ")
	return all
}
