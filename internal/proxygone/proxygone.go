// Package proxygone tells a proxy that has stopped for good, and its work with it,
// from one that cannot be read at the moment. So it does for an app with a
// metrics page.
//
// A proxy whose status page refuses connections may be dead. It may as well be
// stopping in an orderly way: then it has closed its listening sockets, that of
// the page among them, and works on what it has. The sockets of the pod's
// network namespace tell: what no longer listens, neither on its page nor on
// the app's port, takes no new work, and the connections that remain on the
// ports it has served are all that it can still be working on. Proxies close
// their idle connections when they stop, so what remains is work.
package proxygone

import (
	"cmp"
	"fmt"
	"maps"
	"sync"
)

// Proxy is a proxy with a status page, or another program that works on
// requests and has a page, such as the app.
type Proxy struct {
	What     string  // what errors call it; the proxy when empty
	Local    bool    // whether the page is in this pod, so that its sockets are seen
	PagePort int     // the page's TCP port; 0 where it is a unix socket
	AppPorts []int   // the ports at which the pod takes its work; none when not told
	Sockets  Sockets // of the pod; procnet.Kernel()

	mu     sync.Mutex
	served map[int]bool // the ports that were listened on when the page could be read
	still  map[int]bool // those of them that were listened on when Left was last called
}

// Sockets is what procnet.Table tells.
type Sockets interface {
	Listeners() (map[int]bool, error)
	Unfinished(port int) (map[string]bool, error)
}

// Readable is to be called after each reading of the page. It notes which
// ports the proxy may be serving, in addition to those that it has noted before:
// a page may be read while its proxy is closing one port after the other.
func (p *Proxy) Readable() {
	if !p.Local || len(p.AppPorts) == 0 {
		return // Left will not get as far as asking
	}
	ports, err := p.Sockets.Listeners()
	if err != nil {
		return // Left meets the same error, and tells it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.served == nil {
		p.served = make(map[int]bool)
	}
	maps.Copy(p.served, ports)
	p.still = nil
}

// Left returns how many connections remain of a proxy whose page refuses
// connections, as err says: 0 when it is gone for good. A connection is at
// least one request (over HTTP/2 it may be several). It is an error, which
// wraps err and says why, when the proxy may be at work unseen: when the page
// or a port of the app is listened on, or is not known, or is in another pod; and
// at first, since a proxy closes its ports one after the other.
func (p *Proxy) Left(err error) (int64, error) {
	what := cmp.Or(p.What, "the proxy")
	switch {
	case !p.Local:
		return 0, fmt.Errorf("%w; the address is not in this pod, so nothing shows whether %s is gone for good", err, what)
	case len(p.AppPorts) == 0:
		return 0, fmt.Errorf("%w; with LASTCALL_APP_PORT set it could be told whether %s is gone for good", err, what)
	}
	listeners, tableErr := p.Sockets.Listeners()
	switch {
	case tableErr != nil:
		return 0, fmt.Errorf("%w; whether %s is gone for good is not known: %w", err, what, tableErr)
	case p.PagePort != 0 && listeners[p.PagePort]:
		return 0, fmt.Errorf("%w; something listens there again", err)
	}
	for _, port := range p.AppPorts {
		if listeners[port] {
			return 0, fmt.Errorf("%w; but port %d is listened on, so %s may be at work", err, port, what)
		}
	}
	ports, settled := p.closed(listeners)
	if !settled {
		return 0, fmt.Errorf("%w; %s seems to be closing its ports", err, what)
	}
	var left int64
	for port := range ports {
		open, tableErr := p.Sockets.Unfinished(port)
		if tableErr != nil {
			return 0, fmt.Errorf("%w; whether %s is gone for good is not known: %w", err, what, tableErr)
		}
		left += int64(len(open))
	}
	return left, nil
}

// closed returns the ports that the proxy may have served and no longer does,
// and whether these are the same as at the last call.
func (p *Proxy) closed(listeners map[int]bool) (ports map[int]bool, settled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ports, still := map[int]bool{}, map[int]bool{}
	for _, port := range p.AppPorts {
		ports[port] = true
	}
	for port := range p.served {
		switch {
		case listeners[port]:
			still[port] = true
		case port != p.PagePort:
			ports[port] = true
		}
	}
	settled = len(p.served) == 0 || p.still != nil && maps.Equal(still, p.still)
	p.still = still
	return ports, settled
}
