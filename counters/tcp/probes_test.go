package tcp

import (
	"bufio"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"lastcall/internal/test/wait"
)

// from connects to the app from an address in this machine's loopback network.
func (a *app) from(t *testing.T, address string) *client {
	t.Helper()
	dialer := net.Dialer{Timeout: wait.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", a.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * wait.Patience))
	return &client{conn, bufio.NewReader(conn)}
}

const (
	kubelet  = "127.0.0.2"
	somebody = "127.0.0.3"
)

// arrived reads the counter, checks that n requests are in flight, and returns
// the arrivals.
func arrived(t *testing.T, c *Counter, n int64) uint64 {
	t.Helper()
	r, err := c.Count(t.Context())
	if err != nil || r.InFlight != n {
		t.Fatalf("got %+v, %v, want %d in flight", r, err, n)
	}
	return r.Arrived
}

// A probe is neither work nor an arrival, whether a check sees it while it is
// answered or only after it is over.
func TestProbesAreNotWork(t *testing.T) {
	a := startGo(t)
	c := a.settled(t)
	c.IgnoreProbes([]netip.Addr{netip.MustParseAddr(kubelet)})
	c.probes.limit = time.Hour
	look := make(chan struct{}, 1)
	if err := c.watchEnds(t.Context(), look); err != nil {
		t.Fatal(err)
	}
	before := arrived(t, c, 0)

	probe := a.from(t, kubelet)
	gate := a.hold(t, probe)
	if n := arrived(t, c, 0); n != before {
		t.Errorf("%d arrivals by a probe that is being answered", n-before)
	}
	gate.release()
	probe.answer(t, http.StatusOK)
	becomes(t, c, 0, readable)
	probe.Close()
	told(t, look)

	// One more probe is possible. It begins and ends between two checks.
	{
		probe := a.from(t, kubelet)
		probe.say(t, "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nConnection: close\r\n\r\n")
		probe.answer(t, http.StatusOK)
		probe.Close()
		told(t, look)
	}
	if n := arrived(t, c, 0); n != before {
		t.Errorf("%d arrivals by probes that are over", n-before)
	}

	other := a.from(t, somebody)
	gate = a.hold(t, other)
	if n := arrived(t, c, 1); n != before+1 {
		t.Errorf("%d arrivals, want the one from another address", n-before)
	}
	gate.release()
	other.answer(t, http.StatusOK)
	wait.Until(t, "all probes to be forgotten", func() bool {
		c.lock() // the kernel may still be reporting their ends
		defer c.unlock()
		return len(c.probes.young) == 0
	})
}

// A connection that lasts longer than a probe is work, from any address.
func TestALongProbeIsWork(t *testing.T) {
	a := startGo(t)
	c := a.settled(t)
	c.IgnoreProbes([]netip.Addr{netip.MustParseAddr(kubelet)})
	before := arrived(t, c, 0)
	long := a.from(t, kubelet)
	gate := a.hold(t, long)
	arrived(t, c, 0)
	wait.Until(t, "a request of the node's to count", func() bool {
		r, err := c.Count(t.Context())
		return err == nil && r.InFlight == 1 && r.Arrived == before+1
	})
	gate.release()
	long.answer(t, http.StatusOK)
	arrived(t, c, 0)
}

// A connection that existed before the first check is not a probe.
func TestAnOldConnectionOfTheNodesIsWork(t *testing.T) {
	a := startGo(t)
	x := a.from(t, kubelet)
	gate := a.hold(t, x)
	c := newCounter(t, Config{}, a.port)
	c.IgnoreProbes([]netip.Addr{netip.MustParseAddr(kubelet)})
	wantCount(t, c, 1)
	gate.release()
	x.answer(t, http.StatusOK)
}
