package haproxy

import (
	"errors"
	"fmt"
)

// errNotTold says that the kernel cannot tell when an old worker has ended.
var errNotTold = errors.New("with LASTCALL_APP_PORT set, and HAProxy in this pod, it could be told when that is over")

// old follows what a worker from before a reload may still have, where only the
// new one can be asked.
type old struct {
	last     map[string]frontend // at the last reading, by name
	pid      int
	inFlight int64 // at the last reading

	busy bool            // a worker has gone out of sight, with work in flight
	open map[string]bool // the connections that it may have; nil when not looked yet
	seen bool            // a reading has been taken since it went
}

// look takes one reading in, which may be the first of another process. It
// returns an error as long as a worker that cannot be asked may have work in
// flight.
func (o *old) look(w worker, inFlight int64, replaced bool, connections func() (map[string]bool, error)) error {
	if replaced && (o.inFlight > 0 || o.busy) {
		o.busy, o.open, o.seen = true, nil, false
	}
	o.last, o.pid, o.inFlight = byName(w.frontends), w.pid, inFlight
	if !o.busy {
		return nil
	}
	return o.follow(connections)
}

// replaced tells whether w is another process than the one of the last reading.
func (o *old) replaced(w worker, page bool) bool {
	switch {
	case o.last == nil:
		return false
	case !page:
		return w.pid != o.pid
	}
	arrived := false // the request for this page must have
	now := byName(w.frontends)
	for name, before := range o.last {
		f, found := now[name]
		if !found || f.total < before.total || f.itself < before.itself {
			return true
		}
		arrived = arrived || f.total > before.total
	}
	return !arrived
}

func byName(frontends []frontend) map[string]frontend {
	named := make(map[string]frontend, len(frontends))
	for _, f := range frontends {
		named[f.name] = f
	}
	return named
}

// follow waits for the end of the connections that the old worker may have:
// those that are open at the second reading after it went. At the first one it
// may still be accepting.
func (o *old) follow(connections func() (map[string]bool, error)) error {
	const what = "HAProxy was reloaded with work in flight, and the new worker does not know what the old one still has " +
		"(the master's socket does: LASTCALL_HAPROXY_STATS=unix:///path, with haproxy -W -S /path)"
	now, err := connections()
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case !o.seen:
		o.seen = true
		return errors.New(what)
	case o.open == nil:
		o.open = now
	}
	for remote := range o.open {
		if !now[remote] {
			delete(o.open, remote)
		}
	}
	if n := len(o.open); n > 0 {
		return fmt.Errorf("%s: %d connections from before remain", what, n)
	}
	o.busy = false
	return nil
}
