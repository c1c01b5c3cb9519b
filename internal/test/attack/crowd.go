package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/wait"
)

const (
	// again is the interval between connections of the whole crowd. Without it, on
	// one machine, the crowd itself would take all the CPU time.
	again = time.Second / 4000
	// stays is how long a connection that does not read stays open: it does not
	// notice that it was closed. It is longer than the sidecar waits for it.
	stays = 6 * time.Second
	// drips is the interval at which an endless sender sends.
	drips = time.Second
	// addresses is the number of addresses that the crowd calls from, starting at
	// firstAddress. It is a prime, so that each kind uses all of them.
	addresses = 199
)

func firstAddress() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, 1}) }

// Crowd is a number of hostile callers. A caller that is disconnected connects
// again, until the end of the test or Stop.
type Crowd struct {
	address string
	stop    context.CancelFunc
	all     sync.WaitGroup
	may     <-chan time.Time

	came  atomic.Int64 // opened connections
	first atomic.Int64 // callers that have sent their data at least once
}

// Start starts n callers of the given kinds in turn, and returns when each of them
// has reached the victim.
func Start(t testing.TB, v *Victim, n int, kinds ...Kind) *Crowd {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	tick := time.NewTicker(again)
	c := &Crowd{address: v.Address(), stop: stop, may: tick.C}
	t.Cleanup(func() {
		c.Stop()
		tick.Stop()
	})
	for i := range n {
		c.all.Go(func() { c.call(ctx, i, kinds[i%len(kinds)]) })
	}
	v.Eventually(t, "all hostile callers to have connected", func() error {
		if came := c.first.Load(); came < int64(n) {
			return fmt.Errorf("%d of %d have connected", came, n)
		}
		return nil
	})
	return c
}

// Came returns how many connections the crowd has opened so far.
func (c *Crowd) Came() int64 { return c.came.Load() }

// Stop stops all callers.
func (c *Crowd) Stop() {
	c.stop()
	c.all.Wait()
}

// call runs caller number i.
func (c *Crowd) call(ctx context.Context, i int, kind Kind) {
	from := firstAddress()
	for range i % addresses {
		from = from.Next()
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: wait.Patience}
	if kind.Narrow {
		dialer.Control = narrow
	}
	for been := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-c.may:
		}
		dialed, err := dialer.DialContext(ctx, "tcp", c.address)
		conn, ok := dialed.(*net.TCPConn)
		if err != nil || !ok {
			continue
		}
		c.came.Add(1)
		left := context.AfterFunc(ctx, func() { _ = conn.Close() })
		attackBy(ctx, conn, kind, func() {
			if !been {
				been = true
				c.first.Add(1)
			}
		})
		left()
		_ = conn.SetLinger(0) // otherwise the port stays in TIME_WAIT for a minute
		_ = conn.Close()
	}
}

// narrow makes a socket's receive buffer as small as possible.
func narrow(_, _ string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1)
	})
	return errors.Join(err, failed)
}

// attackBy attacks as kind describes on one connection, until it is closed. It
// calls sent when everything that the other end accepts was sent.
func attackBy(ctx context.Context, conn *net.TCPConn, kind Kind, sent func()) {
	if !kind.Reads {
		_ = conn.SetDeadline(time.Now().Add(stays))
	}
	_, err := io.WriteString(conn, kind.Send)
	sent()
	if !kind.Reads {
		if err == nil {
			timer := time.NewTimer(stays)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, conn) // until it is closed
	}()
	if kind.Endless {
		line := kind.Send[strings.LastIndex(strings.TrimSuffix(kind.Send, "\r\n"), "\r\n")+2:]
		if strings.Contains(kind.Send, "chunked") {
			line = "1\r\nx\r\n"
		}
		drip := time.NewTicker(drips)
		defer drip.Stop()
		for err == nil {
			select {
			case <-drip.C:
				_, err = io.WriteString(conn, line)
			case <-closed:
				return
			}
		}
	}
	<-closed
}
