package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

const (
	kubeletAddress = "10.0.0.1"
	// half is a header that does not end.
	half = "GET /livez HTTP/1.1\r\nHost: pod\r\nX-A: b"
	live = "GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n"
)

func withKubelet(c *drain.Config, _ *Options) {
	c.Kubelet = []netip.Addr{netip.MustParseAddr(kubeletAddress)}
}

// other is the address of one of many callers.
func other(i int) string { return fmt.Sprintf("10.1.%d.%d", i/250, i%250+1) }

// closedOf returns how many of the connections are closed.
func closedOf(all []*wire) (n int) {
	for _, w := range all {
		if w.closed() {
			n++
		}
	}
	return n
}

// wantAnswer checks that a connection has received one answer, with the given
// code.
func wantAnswer(t *testing.T, w *wire, code int) {
	t.Helper()
	received := w.received()
	if !strings.HasPrefix(received, fmt.Sprintf("HTTP/1.1 %d ", code)) {
		t.Fatalf("got %q, want %d", received, code)
	}
}

func TestOneAddressCannotTakeAllConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := newEdge(t, withKubelet).serve(Options{})
		var greedy []*wire
		for range maxPerAddress {
			greedy = append(greedy, network.dialFrom("10.1.1.1"))
			after(time.Millisecond)
		}
		if n := closedOf(greedy); n != 0 {
			t.Fatalf("%d of %d connections are closed", n, maxPerAddress)
		}
		another := network.dialFrom("10.1.1.1")
		if n := closedOf(greedy); n != 1 || !greedy[0].closed() || another.closed() {
			t.Errorf("%d are closed, want the oldest alone", n)
		}
		w := network.dialFrom("10.1.1.2")
		w.say(live)
		wantAnswer(t, w, http.StatusOK)
		if n := closedOf(greedy); n != 1 {
			t.Errorf("%d are closed for another address's sake", n)
		}
	})
}

// A mesh's proxy makes everybody's calls from a loopback address.
func TestLoopbackHasNoBoundOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := newEdge(t).serve(Options{})
		var all []*wire
		for range 2 * maxPerAddress {
			all = append(all, network.dialFrom("127.0.0.6"))
		}
		if n := closedOf(all); n != 0 {
			t.Errorf("%d connections are closed", n)
		}
	})
}

func TestWaitingConnectionsAreClosedFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, withKubelet)
		e.counter.set(1, nil)
		network := e.serve(Options{})
		kubelets := network.dialFrom(kubeletAddress)
		hooked := network.dialFrom("10.2.0.1")
		hooked.say(hook)
		after(time.Millisecond)
		answered := network.dialFrom("10.2.0.2")
		answered.say("POST /drain" + head + "Content-Length: 1\r\n\r\n") // its body does not come
		after(time.Millisecond)
		var silent []*wire
		for i := range maxOthers - 2 {
			silent = append(silent, network.dialFrom(other(i)))
			after(time.Millisecond)
		}
		late := network.dialFrom("10.2.0.3")
		late.say(live)
		wantAnswer(t, late, http.StatusOK)
		if n := closedOf(silent); n != 1 || !silent[0].closed() {
			t.Errorf("%d silent connections are closed, want the first", n)
		}
		// New connections make room by closing the silent ones, which are
		// older.
		for range 2 * maxOthers {
			network.dialFrom("10.2.0.4")
			network.dialFrom("127.0.0.6")
		}
		if n := closedOf(silent); n != len(silent) {
			t.Errorf("%d silent connections are closed", n)
		}
		if kubelets.closed() || hooked.closed() || answered.closed() {
			t.Errorf("the kubelet's is closed: %v; the hook's: %v; the answered one's: %v", kubelets.closed(), hooked.closed(), answered.closed())
		}
	})
}

func TestKubeletIsServedWhileHooksHoldAllConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, withKubelet)
		e.counter.set(1, nil)
		network := e.serve(Options{})
		var hooks []*wire
		for i := range maxOthers {
			hooks = append(hooks, network.dialFrom(other(i)))
			hooks[i].say(hook)
		}
		if n := closedOf(hooks); n != 0 {
			t.Fatalf("%d hooks are closed", n)
		}
		for range 10 {
			if !network.dialFrom("10.2.0.1").closed() {
				t.Error("there are more connections than the bound")
			}
			w := network.dialFrom(kubeletAddress)
			w.say(live)
			wantAnswer(t, w, http.StatusOK)
		}
		own := network.dialFrom(kubeletAddress)
		own.say(hook)
		after(time.Second)
		e.counter.set(0, nil)
		after(10 * time.Second)
		wantAnswer(t, own, http.StatusOK)
		for _, w := range hooks {
			wantAnswer(t, w, http.StatusOK)
		}
	})
}

// The kubelet is recognised by its IPv4 and its IPv6 address, also by an IPv4
// address on an IPv6 socket.
func TestKubeletIsKnownInAnyNotation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, func(c *drain.Config, _ *Options) {
			c.Kubelet = []netip.Addr{netip.MustParseAddr(kubeletAddress), netip.MustParseAddr("2001:db8::9")}
		})
		e.counter.set(1, nil)
		network := e.serve(Options{})
		for i := range maxOthers {
			network.dialFrom(other(i)).say(hook)
		}
		synctest.Wait()
		for _, address := range []string{kubeletAddress, "::ffff:" + kubeletAddress, "2001:db8::9"} {
			w := network.dialFrom(address)
			w.say(live)
			wantAnswer(t, w, http.StatusOK)
		}
		for _, address := range []string{"127.0.0.1", "::1", "2001:db8::10"} {
			if !network.dialFrom(address).closed() {
				t.Errorf("%s is taken for the kubelet", address)
			}
		}
	})
}

// A caller that claims to be the kubelet gets only the kubelet's own limit, and
// the blocked hooks are not closed for it.
func TestKubeletsConnectionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, withKubelet)
		e.counter.set(1, nil)
		network := e.serve(Options{})
		first := network.dialFrom(kubeletAddress)
		first.say(hook)
		var all []*wire
		for range 2 * maxKubelet {
			all = append(all, network.dialFrom(kubeletAddress))
			after(time.Millisecond)
		}
		if n := closedOf(all); n != maxKubelet+1 || first.closed() {
			t.Errorf("%d are closed, the hook's: %v", n, first.closed())
		}
	})
}

func TestFewHeadersAreReadAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := newEdge(t, withKubelet).serve(Options{})
		var slow []*wire
		for i := range maxOthers {
			slow = append(slow, network.dialFrom(other(i)))
			slow[i].say(half)
		}
		synctest.Wait()
		w := network.dialFrom(kubeletAddress)
		w.say(live)
		wantAnswer(t, w, http.StatusOK) // without a delay
		late := network.dialFrom("10.2.0.1")
		late.say(live)
		after(partialLimit * time.Duration(maxOthers/maxPartial+1))
		wantAnswer(t, late, http.StatusOK)
		if n := closedOf(slow); n < maxOthers-2*maxPartial {
			t.Errorf("%d of those that do not end their headers are closed", n)
		}
	})
}

// A caller that does not take its answers is cut off.
func TestSlowReaderIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := newEdge(t).serve(Options{})
		ours, theirs := net.Pipe()
		defer ours.Close()
		network.incoming <- theirs
		if _, err := io.WriteString(ours, "GET /status HTTP/1.1\r\nHost: pod\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		after(writeLimit + time.Second)
		synctest.Wait()
		if text, _ := io.ReadAll(ours); len(text) > 0 {
			t.Errorf("it was still sent %q", text)
		}
	})
}

func TestRefusedConnectionsAreLoggedSeldom(t *testing.T) {
	var l rateLimitedLog
	now := time.Now()
	for i, want := range []bool{true, false, false, true} {
		if got := l.may(now.Add(time.Duration(i) * 4 * time.Second)); got != want {
			t.Errorf("after %d s: %v", 4*i, got)
		}
	}
}
