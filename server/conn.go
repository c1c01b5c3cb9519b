package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

const (
	// writeLimit limits how long a caller may take to receive one part of its
	// answer.
	writeLimit = 5 * time.Second
	// closeLimit limits how long a caller may take to receive the rest of its
	// answer and to close the connection.
	closeLimit = 5 * time.Second
	// closeLook is how often we ask the kernel for unreceived data after the
	// caller has closed its half of the connection.
	closeLook = 10 * time.Millisecond
)

// connState is the state of a connection, as the guard sees it.
type connState int

const (
	waiting       connState = iota // nothing of a request has arrived
	partial                        // a part of a request's header has arrived
	answering                      // the request is being answered
	hooked                         // a preStop hook blocks on it
	leaving                        // the answer was sent, and the caller has not closed the connection
	closedByGuard                  // the guard has closed it, and the server has not noticed yet
	closed
)

// conn is a connection that the guard knows.
type conn struct {
	net.Conn
	guard     *guard
	from      netip.Addr // the caller's address; invalid if it cannot be read
	ofKubelet bool

	state connState // guarded by guard.mu, like since
	since time.Time // when the connection entered this state
	// lacks is true while the part of the header that has arrived is
	// incomplete.
	lacks bool
	// holdsHeader is true while the server holds a header, even after the guard
	// has closed the connection.
	holdsHeader bool
	next        chan struct{} // closed when the header may be read, or never will be
}

// mayRead reports whether the connection is open: the guard has not closed it.
func (c *conn) mayRead() bool {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	return c.state < closedByGuard
}

// class is 1 for the kubelet's connections and 0 for all others.
func (c *conn) class() int {
	if c.ofKubelet {
		return 1
	}
	return 0
}

// rank orders connections for closing: those with a lower rank are closed
// first.
func (c *conn) rank() int {
	if c.state == answering {
		return 1
	}
	return 0
}

func (c *conn) Read(b []byte) (int, error) {
	c.guard.reads(c)
	n, err := c.Conn.Read(b)
	if n == 0 {
		return 0, err
	}
	if !c.guard.begin(c) {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write limits the time that the caller may take to receive b. The server
// itself has no write timeout, because that would also end a blocked hook.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// CloseWrite closes the sending half of the connection. The server calls it to
// make sure that a caller receives the error if its request was not read to the
// end.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close waits until the caller has received everything that was written. Data
// left in the kernel would be memory that nothing limits.
func (c *conn) Close() error {
	if c.guard.leaves(c) {
		c.linger()
	}
	c.guard.left(c)
	return c.Conn.Close()
}

// linger waits up to closeLimit until the caller has closed the connection and
// has received all of its answer. Whatever is left then is discarded.
func (c *conn) linger() {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return
	}
	deadline := time.Now().Add(closeLimit)
	_ = tcp.CloseWrite() // an error means that it is closed already
	_ = tcp.SetReadDeadline(deadline)
	var ignored [512]byte
	for {
		if _, err := tcp.Read(ignored[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			_ = tcp.SetLinger(0)
			return
		}
	}
	look := time.NewTicker(closeLook)
	defer look.Stop()
	for unreceived(tcp) {
		if time.Now().After(deadline) {
			_ = tcp.SetLinger(0)
			return
		}
		<-look.C
	}
}

type connKey struct{}

// withConn makes the connection available to the handlers of its requests. It
// is an [http.Server]'s ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// dropHeader tells the guard that the header of a call is no longer held in
// memory.
func dropHeader(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		c.guard.headerDropped(c)
	}
}

// holdHook marks the connection of a call as one on which a hook blocks.
func holdHook(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	if c.state == answering {
		c.state = hooked
	}
}

// addressOf returns the address of a connection's caller.
func addressOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// abort closes a connection and discards unsent data, which the kernel would
// otherwise hold for the caller.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // an error does not matter: Close follows
	}
	_ = c.Close()
}
