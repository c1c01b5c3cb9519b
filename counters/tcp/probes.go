package tcp

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// probeLimit is how long a connection may be taken for a probe of the
	// kubelet: the timeoutSeconds of probes is 1 unless it is set. A connection
	// that lasts longer counts like anybody's.
	probeLimit = time.Second
	// probeEvery is the smallest periodSeconds that a probe can have.
	probeEvery = time.Second
	// probesAtOnce is how many probes may come close together on one port: the
	// readiness probe of a pod that is leaving continues, and its liveness
	// probe may just have run.
	probesAtOnce = 2
	// kubeletAddresses bounds the addresses from which probes are expected.
	kubeletAddresses = 8
)

// probes separates the kubelet's probes from work. The probes continue during a
// drain. Each uses its own connection, which ends with the answer. One probe a
// second would keep the pod from ever being quiet.
//
// Other connections may come from the kubelet's address too: from programs on
// the node, and from clients that the node forwards (NodePorts,
// externalTrafficPolicy: Cluster). So a connection from that address is taken
// for a probe only if a probe would explain it: probes are short, come one
// after the other on a port, and no faster than one a second. Everything else
// counts like a connection from anywhere.
type probes struct {
	limit time.Duration        // how long a probe may take; 0: probeLimit
	young map[uint64]*probe    // the connections that may be a probe, by cookie
	paces map[probeFrom]*pacer // how fast the probes come

	mu   sync.Mutex
	from []netip.Addr
}

type probe struct {
	since time.Time // when it was first seen
	pacer *pacer
}

// probeFrom identifies who probes which port.
type probeFrom struct {
	from netip.Addr
	port int
}

// pacer is a token bucket. A probe takes one of probesAtOnce tokens, and each
// token comes back after probeEvery.
type pacer struct {
	tokens float64
	at     time.Time // when tokens was last updated
	open   int       // probes under way
}

// take reports whether a new connection may be a probe, and takes a token for
// it.
func (p *pacer) take(now time.Time) bool {
	p.tokens = min(probesAtOnce, p.tokens+now.Sub(p.at).Seconds()/probeEvery.Seconds())
	p.at = now
	if p.open > 0 || p.tokens < 1 {
		return false
	}
	p.tokens--
	return true
}

// IgnoreProbes sets the addresses from which the kubelet's probes come. It
// replaces those set before.
func (c *Counter) IgnoreProbes(from []netip.Addr) {
	c.probes.mu.Lock()
	defer c.probes.mu.Unlock()
	c.probes.from = nil
	for _, a := range from[:min(len(from), kubeletAddresses)] {
		c.probes.from = append(c.probes.from, a.Unmap())
	}
}

// explains returns the pacer of a connection that has just been made if the
// connection may be a probe, and nil otherwise.
func (p *probes) explains(s *socket, now time.Time) *pacer {
	from := probeFrom{s.remote.Addr().Unmap(), s.port}
	p.mu.Lock()
	known := slices.Contains(p.from, from.from)
	p.mu.Unlock()
	if !known {
		return nil
	}
	if p.paces == nil || len(p.paces) > kubeletAddresses*maxPorts {
		p.paces = make(map[probeFrom]*pacer) // the addresses have changed
	}
	pace := p.paces[from]
	if pace == nil {
		pace = &pacer{tokens: probesAtOnce, at: now}
		p.paces[from] = pace
	}
	if !pace.take(now) {
		return nil
	}
	return pace
}

// began records a connection that was made since the last check.
func (p *probes) began(s *socket, now time.Time) {
	pace := p.explains(s, now)
	if pace == nil {
		return
	}
	if p.young == nil {
		p.young = make(map[uint64]*probe)
	}
	pace.open++
	p.young[s.cookie] = &probe{now, pace}
}

// cameAndWent reports whether a connection that began and ended since the last
// check was a probe.
func (p *probes) cameAndWent(s *socket, now time.Time) bool { return p.explains(s, now) != nil }

// holds reports whether a connection may be a probe at the time now, and
// whether it has just become too old to be one.
func (p *probes) holds(cookie uint64, now time.Time) (isProbe, outgrown bool) {
	one := p.young[cookie]
	if one == nil {
		return false, false
	}
	limit := p.limit
	if limit == 0 {
		limit = probeLimit
	}
	if now.Sub(one.since) < limit {
		return true, false
	}
	p.ended(cookie)
	return false, true
}

// ended forgets a connection, and reports whether it may have been a probe.
func (p *probes) ended(cookie uint64) bool {
	one := p.young[cookie]
	if one == nil {
		return false
	}
	one.pacer.open--
	delete(p.young, cookie)
	return true
}
