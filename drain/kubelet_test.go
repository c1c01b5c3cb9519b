package drain

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestKubelet(t *testing.T) {
	var (
		own   = netip.MustParseAddr("10.0.0.1")
		fixed = netip.MustParseAddr("10.0.0.2")
		start = time.Now()
	)
	other := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.1.0.%d", i)) }
	// probe has the address probe from a time on, each after a pause.
	probe := func(k *kubelet, from netip.Addr, at time.Time, pause time.Duration, calls int) time.Time {
		for range calls {
			k.called(from, false, at)
			at = at.Add(pause)
		}
		return at
	}
	t.Run("probes that come as probes do", func(t *testing.T) {
		k := kubelet{fixed: []netip.Addr{fixed}}
		probe(&k, own, start, time.Second, probeCalls)
		if want := []netip.Addr{fixed, own}; !slices.Equal(k.addresses(), want) {
			t.Errorf("got %v, want %v", k.addresses(), want)
		}
		k.called(other(1), false, start) // once is not enough
		if !k.is(fixed) || !k.is(own) || k.is(other(1)) || k.is(other(2)) || k.is(netip.Addr{}) {
			t.Errorf("is at %v: %v, %v: %v, %v: %v", fixed, k.is(fixed), own, k.is(own), other(1), k.is(other(1)))
		}
	})
	t.Run("calls that come faster than probes", func(t *testing.T) {
		var k kubelet
		probe(&k, own, start, 10*time.Millisecond, 50)
		if len(k.addresses()) > 0 {
			t.Errorf("got %v", k.addresses())
		}
	})
	t.Run("others that come first keep it out for as long as they call", func(t *testing.T) {
		var k kubelet
		at := start
		for i := range 2 * kubeletAddresses {
			at = probe(&k, other(i), at, time.Second, probeCalls)
		}
		if n := len(k.addresses()); n != kubeletAddresses {
			t.Errorf("%d addresses are known, want %d", n, kubeletAddresses)
		}
		at = at.Add(kubeletSilent)
		probe(&k, own, at, time.Second, probeCalls)
		if !slices.Contains(k.addresses(), own) || len(k.addresses()) > kubeletAddresses {
			t.Errorf("got %v, want %v among at most %d", k.addresses(), own, kubeletAddresses)
		}
	})
	t.Run("it keeps its place against any number of others", func(t *testing.T) {
		var k kubelet
		at := probe(&k, own, start, time.Second, probeCalls)
		for i := range 200 {
			k.called(own, false, at)
			at = probe(&k, other(i), at, time.Second, probeCalls)
		}
		if !slices.Contains(k.addresses(), own) {
			t.Errorf("got %v, want %v among them", k.addresses(), own)
		}
	})
	t.Run("a hook is enough", func(t *testing.T) {
		var k kubelet
		if !k.called(own, true, start) || k.called(own, true, start) || !slices.Equal(k.addresses(), []netip.Addr{own}) {
			t.Errorf("got %v", k.addresses())
		}
	})
}
