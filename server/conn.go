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
	// writeLimit is how long a caller may take to receive a part of its answer.
	writeLimit = 5 * time.Second
	// closeLimit is how long it may take to receive the rest and to close the
	// connection.
	closeLimit = 5 * time.Second
	// closeLook is how often the kernel is asked for what was not received of a
	// caller that has closed its half before.
	closeLook = 10 * time.Millisecond
)

// connState is what a connection is at, for the guard.
type connState int

const (
	waiting       connState = iota // nothing of a request has come
	partial                        // a part of a request's header has
	answering                      // the request is being answered
	hooked                         // a preStop hook blocks on it
	leaving                        // it was answered, and the caller has not closed it
	closedByGuard                  // and the server has not noticed yet
	closed
)

// conn is a connection that the guard knows.
type conn struct {
	net.Conn
	guard     *guard
	from      netip.Addr // invalid if it cannot be read
	ofKubelet bool

	state connState // guarded by guard.mu, as is the next
	since time.Time // when it came to be in that state
	// lacks is true when what has come of a header is not all of it.
	lacks bool
	// holdsHeader is true while the server holds a header, also after the guard
	// has closed the connection.
	holdsHeader bool
	turn        chan struct{} // closed when the header may be read, or never will be
}

// mayRead reports whether the guard has left it open.
func (c *conn) mayRead() bool {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	return c.state < closedByGuard
}

// class is 1 for the kubelet's, and 0 for all others.
func (c *conn) class() int {
	if c.ofKubelet {
		return 1
	}
	return 0
}

// rank is the order in which connections are closed.
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

// Write bounds the time in which the caller takes what it is sent. The server
// has no bound of its own, since it would end a blocked hook as well.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// CloseWrite closes half of the connection, by which the server makes sure that
// a caller whose request it did not read to the end receives the error.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close waits until the caller has taken what it was sent: what is left to the
// kernel would be memory that nobody bounds.
func (c *conn) Close() error {
	if c.guard.leaves(c) {
		c.linger()
	}
	c.guard.left(c)
	return c.Conn.Close()
}

// linger waits until the caller has closed the connection and has received all
// of its answer, for up to closeLimit. What is left then is thrown away.
func (c *conn) linger() {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return
	}
	deadline := time.Now().Add(closeLimit)
	_ = tcp.CloseWrite() // else it is closed already
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

// withConn makes the connection known to the handlers of its calls; it is an
// [http.Server]'s ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// dropHeader tells the guard that nothing is held of a call's header any more.
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

// abort closes a connection without a wait for what was not sent: the kernel
// would hold that for the caller.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it is closed in any case
	}
	_ = c.Close()
}
