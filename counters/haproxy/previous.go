package haproxy

import (
	"errors"

	"lastcall/internal/proxygone"
)

// errStored is the error for a page that does not count the request for it.
var errStored = errors.New("the page does not count the request that asks for it: it seems to be a cached copy")

// previousWorker follows what a worker from before a reload may still have, if
// only the new worker can be asked.
type previousWorker struct {
	last     map[string]frontend // at the last reading, by name
	pid      int                 // 0 if not reported
	inFlight int64               // at the last reading

	proxygone.Previous
}

// look records one reading, which may be the first of another process. It
// returns an error while a worker that cannot be asked may have work in flight.
func (p *previousWorker) look(w worker, inFlight int64, replaced bool, connections func() (map[string]bool, error)) error {
	if replaced && (p.inFlight > 0 || p.Busy()) {
		p.Replaced()
	}
	p.last, p.pid, p.inFlight = byName(w.frontends), w.pid, inFlight
	return p.Left("HAProxy was reloaded with work in flight, and the new worker does not know what the old one still has "+
		"(the master's socket does: LASTCALL_HAPROXY_STATS=unix:///path, with haproxy -W -S /path)", connections)
}

// replaced reports whether w is another process than that of the last reading,
// and whether it is a copy of the last reading. If the process id is not
// reported, these may look the same: then both are true.
func (p *previousWorker) replaced(w worker, page bool) (replaced, stored bool) {
	switch {
	case p.last == nil:
		return false, false
	case w.pid != p.pid:
		return true, false
	case !page:
		return false, false
	}
	arrived := false // true if the request for this page has arrived, as it must
	now := byName(w.frontends)
	for name, before := range p.last {
		f, found := now[name]
		if !found || f.total < before.total || f.itself < before.itself {
			return true, false
		}
		arrived = arrived || f.total > before.total
	}
	return !arrived && w.pid == 0, !arrived
}

func byName(frontends []frontend) map[string]frontend {
	named := make(map[string]frontend, len(frontends))
	for _, f := range frontends {
		named[f.name] = f
	}
	return named
}
