package haproxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lastcall/internal/fetch"
	"lastcall/internal/lazyregexp"
)

// page is the statistics page: the CSV page and the HTML page, whose head
// describes the whole process. `stats scope` hides frontends on both, but that
// head still counts their connections.
type page struct {
	csv   *fetch.Source
	whole *fetch.Source // the HTML page, without any frontend
	asked uint64        // requests since the last reading that was used
	last  seen          // what the last CSV page showed
}

// seen is what a CSV page showed. If two pages are equal in it, no connection was
// opened between them.
type seen struct {
	pid    int
	opened uint64 // connections of all frontends on the page since the process began
}

func openPage(settings fetch.Settings) (*page, error) {
	csv, err := fetch.Open(settings)
	if err != nil {
		return nil, err
	}
	address, _, _ := strings.Cut(settings.Address, "?")
	address, _, _ = strings.Cut(address, ";csv")
	settings.Address = address + "?scope=lastcall-asks-for-none"
	whole, err := fetch.Open(settings)
	if err != nil {
		return nil, err
	}
	// With a separate connection, a request for the HTML page could still be
	// open in the statistics when the CSV page is written.
	whole.ShareConnections(csv)
	return &page{csv: csv, whole: whole}, nil
}

// attempts is how often an inconsistent page is read: connections may be opened
// and closed between its two parts.
const attempts = 8

// read returns the frontends. If everything must be on the page, it also
// returns the process id, and an error if the page hides a frontend that has
// connections.
func (p *page) read(ctx context.Context, everything bool) (worker, error) {
	var hidden error
	complete := 0 // attempts in a row that showed nothing hidden
	for range attempts {
		var w worker
		var conns int64
		var unknown error // why it is not known whether everything is on the page
		if everything {
			w.pid, conns, unknown = p.readWhole(ctx)
		}
		p.asked++
		body, err := p.csv.Get(ctx, pageLimit)
		if err != nil {
			return worker{}, err
		}
		if w.frontends, err = parse(body); err != nil {
			return worker{}, err
		}
		if unknown != nil {
			return worker{}, unknown
		}
		if !everything {
			return w, nil
		}
		now := seen{pid: w.pid}
		for _, f := range w.frontends {
			conns -= f.conns
			now.opened += f.opened
		}
		last := p.last
		p.last = now
		if conns > 0 {
			complete = 0
			hidden = fmt.Errorf("HAProxy has %d more connections than the frontends on the page: `stats scope` hides a frontend; "+
				"remove it, or read the runtime socket, or set LASTCALL_HAPROXY_FRONTENDS to the frontends to count", conns)
			continue
		}
		// A connection that was opened between the two parts is in the second
		// alone, and makes up for one that is hidden. That matters only if
		// nothing is in flight on the page. Requests for the page may themselves
		// come on new connections: then two attempts in a row must agree.
		complete++
		if complete == 2 || now == last || w.busy() {
			return w, nil
		}
	}
	return worker{}, hidden
}

// busy reports whether the frontends have more in flight than a request for the
// page.
func (w worker) busy() bool {
	var sum int64
	for _, f := range w.frontends {
		if !f.answersItself() {
			sum += f.inFlight()
		}
	}
	return sum > 1
}

// head matches what the HTML page shows about the process.
var head = lazyregexp.New(`(?s)<b>pid = </b> (\d+) .*current conns = (\d+);`)

// readWhole returns the process id and the number of connections of all
// frontends.
func (p *page) readWhole(ctx context.Context) (pid int, conns int64, err error) {
	p.asked++
	body, err := p.whole.Get(ctx, pageLimit)
	if err != nil {
		return 0, 0, fmt.Errorf("checking whether the page hides frontends: %w", err)
	}
	return parseWhole(body)
}

func parseWhole(body []byte) (pid int, conns int64, err error) {
	m := head().FindSubmatch(body)
	if m == nil {
		return 0, 0, errors.New("whether the page hides frontends is not known: the HTML page, at the same address without `;csv`, " +
			"does not show `current conns`; read the runtime socket, or set LASTCALL_HAPROXY_FRONTENDS to the frontends to count")
	}
	id, err1 := strconv.ParseInt(string(m[1]), 10, 32)
	conns, err2 := strconv.ParseInt(string(m[2]), 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("a number on the HTML page is out of range: %w", err)
	}
	return int(id), conns, nil
}
