package proxygone

import (
	"errors"
	"fmt"
)

// errUnseen means that the kernel cannot show the connections of a previous
// process.
var errUnseen = errors.New("the end of that is only visible if LASTCALL_APP_PORT is set and the proxy is in this pod")

// Open returns the open connections of the app's ports.
func (p *Proxy) Open() (map[string]bool, error) {
	if len(p.AppPorts) == 0 || !p.Local {
		return nil, errUnseen
	}
	all := map[string]bool{}
	for _, port := range p.AppPorts {
		open, err := p.Sockets.Unfinished(port)
		if err != nil {
			return nil, err
		}
		for remote := range open {
			all[fmt.Sprint(port, " ", remote)] = true
		}
	}
	return all, nil
}

// Previous tracks the remaining work of a process that was replaced by another. The
// old process can no longer be asked, because the page is now that of the new one.
// The zero value tracks nothing.
type Previous struct {
	busy bool            // a process was replaced while it had work in flight
	open map[string]bool // connections that may be the old process's; nil before the second call of Left
	seen bool            // Left has been called since the process was replaced
}

// Busy reports whether a replaced process may still have work in flight.
func (p *Previous) Busy() bool { return p.busy }

// Replaced begins to track a process that was just replaced while it had work in
// flight.
func (p *Previous) Replaced() { *p = Previous{busy: true} }

// Left returns an error while the old process may have work in flight: until all
// connections have ended that were open at the second call. At the first call the
// old process may still be accepting connections. The error begins with what, a
// description of what happened.
func (p *Previous) Left(what string, connections func() (map[string]bool, error)) error {
	if !p.busy {
		return nil
	}
	now, err := connections()
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case !p.seen:
		p.seen = true
		return errors.New(what)
	case p.open == nil:
		p.open = now
	}
	for remote := range p.open {
		if !now[remote] {
			delete(p.open, remote)
		}
	}
	if n := len(p.open); n > 0 {
		return fmt.Errorf("%s: %d connections from before remain", what, n)
	}
	*p = Previous{}
	return nil
}
