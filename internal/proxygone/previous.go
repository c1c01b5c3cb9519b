package proxygone

import (
	"errors"
	"fmt"
)

// errUnseen says that the kernel cannot show what a previous process still has.
var errUnseen = errors.New("with LASTCALL_APP_PORT set, and the proxy in this pod, it could be seen when that is over")

// Open returns the connections of the app's ports.
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

// Previous follows what a process still has that was replaced by another, and
// that cannot be asked any more: the page is the new one's. The zero value
// follows nothing.
type Previous struct {
	busy bool            // a process has gone out of sight, with work in flight
	open map[string]bool // the connections that it may have; nil when not looked yet
	seen bool            // a look has been taken since it went
}

// Busy reports whether a process may still have work in flight.
func (p *Previous) Busy() bool { return p.busy }

// Replaced begins to follow a process that has just gone out of sight with work
// in flight.
func (p *Previous) Replaced() { *p = Previous{busy: true} }

// Left returns an error as long as the process may have work in flight: until
// the connections have ended that were open at the second look after it went.
// At the first one it may still be accepting. What says what has happened.
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
