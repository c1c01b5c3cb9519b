package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// answeredConn returns a connection on which an answer was written, and the
// caller's end of it. The caller has received little of the answer so far.
func answeredConn(t *testing.T, answer []byte) (*conn, *net.TCPConn) {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard(l, func(netip.Addr) bool { return false })
	dialer := net.Dialer{Control: func(_, _ string, socket syscall.RawConn) error {
		return socket.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) // if this fails, so does the test
		})
	}}
	caller, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = caller.Close(), accepted.Close(), l.Close() })
	c := accepted.(*conn)
	c.state = answering
	if _, err := c.Write(answer); err != nil {
		t.Fatal(err)
	}
	return c, caller.(*net.TCPConn)
}

// A connection is counted until the caller has received its answer: the kernel
// holds the rest.
func TestAnswerIsWaitedFor(t *testing.T) {
	answer := bytes.Repeat([]byte("x"), 8<<10)
	for name, leaves := range map[string]func(*net.TCPConn) error{
		"a caller that closes after its answer": func(*net.TCPConn) error { return nil },
		"a caller that closed its half before":  (*net.TCPConn).CloseWrite,
		"a caller that sends more": func(c *net.TCPConn) error {
			_, err := io.WriteString(c, live)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, caller := answeredConn(t, answer)
			if err := leaves(caller); err != nil {
				t.Fatal(err)
			}
			closed := make(chan error)
			go func() { closed <- c.Close() }()
			got, err := io.ReadAll(caller)
			if err != nil || !bytes.Equal(got, answer) {
				t.Errorf("received %d bytes of %d: %v", len(got), len(answer), err)
			}
			_ = caller.Close()
			<-closed
			if n := len(c.guard.open); n != 0 {
				t.Errorf("%d connections are counted", n)
			}
		})
	}
	for name, leaves := range map[string]func(*net.TCPConn) error{
		"a caller that takes nothing":                            func(*net.TCPConn) error { return nil },
		"a caller that takes nothing and closed its half before": (*net.TCPConn).CloseWrite,
	} {
		t.Run(name, func(t *testing.T) {
			c, caller := answeredConn(t, answer)
			if err := leaves(caller); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_ = c.Close()
			if took := time.Since(began); took < closeLimit-time.Second/10 {
				t.Errorf("was waited for only for %v", took)
			}
			if _, err := io.ReadAll(caller); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the kernel still has the rest for it: %v", err)
			}
			if n := len(c.guard.open); n != 0 {
				t.Errorf("%d connections are counted", n)
			}
		})
	}
}
