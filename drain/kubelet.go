package drain

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// kubeletAddresses bounds the addresses at which the kubelet is known: it
	// has one for each family, and another after a change of the network.
	kubeletAddresses = 4
	// kubeletSilent is how long an address must have made no call to give its
	// place to another. The periodSeconds of a probe is seldom longer.
	kubeletSilent = time.Minute
	// probeCalls are the probes that must have come from an address, each
	// probePeriod after the one before, for it to be taken for the kubelet's.
	probeCalls  = 3
	probePeriod = 900 * time.Millisecond // periodSeconds is 1 at least
)

// kubelet holds the addresses that the kubelet calls from. Whoever is known as
// the kubelet has no more of it than that some of its short connections to the
// app are not counted.
type kubelet struct {
	fixed  []netip.Addr // by configuration
	places []kubeletPlace
}

type kubeletPlace struct {
	addr  netip.Addr
	calls int // until it is known
	last  time.Time
	known bool
}

// called records a call that says it is the kubelet's. sure is true for a
// hook, of which there may be only one; a probe must be seen several times. It
// reports whether an address became known.
func (k *kubelet) called(from netip.Addr, sure bool, now time.Time) bool {
	if from.IsLoopback() || slices.Contains(k.fixed, from) {
		return false // by loopback a mesh's proxy calls, for the kubelet and for everybody
	}
	i := slices.IndexFunc(k.places, func(p kubeletPlace) bool { return p.addr == from })
	if i < 0 {
		if i = k.free(now); i < 0 {
			return false
		}
		k.places[i] = kubeletPlace{addr: from}
	}
	p := &k.places[i]
	if now.Sub(p.last) >= probePeriod {
		p.calls++
	}
	p.last = now
	if p.known || !sure && p.calls < probeCalls {
		return false
	}
	p.known = true
	return true
}

// free returns a place for one more address: a new one, or that of one which
// has been silent for long; -1 when there is none.
func (k *kubelet) free(now time.Time) int {
	if len(k.places) < kubeletAddresses {
		k.places = append(k.places, kubeletPlace{})
		return len(k.places) - 1
	}
	return slices.IndexFunc(k.places, func(p kubeletPlace) bool { return now.Sub(p.last) >= kubeletSilent })
}

// is reports whether it is known at an address.
func (k *kubelet) is(addr netip.Addr) bool {
	return slices.Contains(k.fixed, addr) ||
		slices.ContainsFunc(k.places, func(p kubeletPlace) bool { return p.known && p.addr == addr })
}

// addresses returns those that are known.
func (k *kubelet) addresses() []netip.Addr {
	all := slices.Clone(k.fixed)
	for _, p := range k.places {
		if p.known {
			all = append(all, p.addr)
		}
	}
	return all
}
