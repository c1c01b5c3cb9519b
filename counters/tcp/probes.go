package tcp

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// probeLimit is how long a connection may be a probe of the kubelet's: their
// timeoutSeconds is 1 unless it is set. One that lasts longer is taken for
// anybody's.
const probeLimit = time.Second

// probes tells the kubelet's probes from work. They go on while a pod leaves,
// each on a connection of its own that ends with the answer, and one every
// second would keep the pod from ever being quiet. Others may come from the
// kubelet's address too: programs on the node, and clients for whom the node
// stands in. What they ask on connections that were there before, or that last
// longer, counts as it does from everywhere.
type probes struct {
	limit time.Duration        // how long one may take
	young map[uint64]time.Time // when each connection that may be one was first seen

	mu   sync.Mutex
	from []netip.Addr
}

// IgnoreProbes tells an address from which the kubelet's probes come.
func (c *Counter) IgnoreProbes(from netip.Addr) {
	c.probes.mu.Lock()
	defer c.probes.mu.Unlock()
	c.probes.from = append(c.probes.from, from.Unmap())
}

// come from the kubelet's address.
func (p *probes) come(from netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.from, from.Unmap())
}

// began takes in a connection that has been made since the last look.
func (p *probes) began(s *socket, now time.Time) {
	if !p.come(s.remote.Addr()) {
		return
	}
	if p.young == nil {
		p.young = make(map[uint64]time.Time)
	}
	p.young[s.cookie] = now
}

// holds tells whether a connection may be a probe at the time now, and whether
// it has just got too old for one.
func (p *probes) holds(cookie uint64, now time.Time) (probe, outgrown bool) {
	since, young := p.young[cookie]
	if !young {
		return false, false
	}
	if now.Sub(since) < p.limit {
		return true, false
	}
	delete(p.young, cookie)
	return false, true
}

// ended forgets a connection, and tells whether it may have been a probe.
func (p *probes) ended(cookie uint64) bool {
	_, young := p.young[cookie]
	delete(p.young, cookie)
	return young
}
