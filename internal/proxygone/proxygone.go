// Package proxygone distinguishes a proxy that has stopped for good, with no work
// left, from one that cannot be read at the moment. It does the same for an app
// with a metrics page.
//
// A proxy whose status page refuses connections may be dead. It may also be
// shutting down gracefully: then it has closed its listening sockets, including
// that of the page, and finishes its open connections. The sockets of the pod's
// network namespace show the difference. A proxy that no longer listens on its page
// or on the app's port takes no new work, and all its remaining work is on the
// connections that are still open on the ports it has served. Proxies close their
// idle connections when they stop, so each remaining connection is work.
package proxygone

import (
	"cmp"
	"fmt"
	"maps"
	"sync"
)

// Proxy is a proxy with a status page, or another program that handles requests and
// has a page, such as the app.
type Proxy struct {
	What     string  // name in errors; empty: "the proxy"
	Local    bool    // whether the page is in this pod, where its sockets can be seen
	PagePort int     // the page's TCP port; 0 for a unix socket
	AppPorts []int   // the ports on which the pod takes its work; empty if not configured
	Sockets  Sockets // of the pod; procnet.Kernel()

	mu     sync.Mutex
	served map[int]bool // ports with listeners when the page was readable
	still  map[int]bool // those of them that still had listeners at the last call of Left
}

// Sockets is the part of procnet.Table that a Proxy needs.
type Sockets interface {
	Listeners() (map[int]bool, error)
	Unfinished(port int) (map[string]bool, error)
}

// Readable must be called after each successful reading of the page. It adds the
// ports that the proxy may be serving to those recorded before: the page may be
// readable while the proxy is closing its ports one after the other.
func (p *Proxy) Readable() {
	if !p.Local || len(p.AppPorts) == 0 {
		return // Left returns an error before it needs the ports
	}
	ports, err := p.Sockets.Listeners()
	if err != nil {
		return // Left gets the same error, and returns it
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
// connections with the error err. 0 means that the proxy is gone for good. A
// connection is at least one request (with HTTP/2, possibly several). Left returns
// an error that wraps err and gives the reason if the proxy may be working unseen:
// if the page or a port of the app has a listener, is unknown, or is in another
// pod. The first call also returns an error, because a proxy closes its ports one
// after the other.
func (p *Proxy) Left(err error) (int64, error) {
	what := cmp.Or(p.What, "the proxy")
	switch {
	case !p.Local:
		return 0, fmt.Errorf("%w; the address is not in this pod, so nothing shows whether %s is gone for good", err, what)
	case len(p.AppPorts) == 0:
		return 0, fmt.Errorf("%w; set LASTCALL_APP_PORT to find out whether %s is gone for good", err, what)
	}
	listeners, tableErr := p.Sockets.Listeners()
	switch {
	case tableErr != nil:
		return 0, fmt.Errorf("%w; it is unknown whether %s is gone for good: %w", err, what, tableErr)
	case p.PagePort != 0 && listeners[p.PagePort]:
		return 0, fmt.Errorf("%w; something listens there again", err)
	}
	for _, port := range p.AppPorts {
		if listeners[port] {
			return 0, fmt.Errorf("%w; but port %d has a listener, so %s may be working", err, port, what)
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
			return 0, fmt.Errorf("%w; it is unknown whether %s is gone for good: %w", err, what, tableErr)
		}
		left += int64(len(open))
	}
	return left, nil
}

// closed returns the ports that the proxy may have served and no longer serves, and
// whether they are the same as at the last call.
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
