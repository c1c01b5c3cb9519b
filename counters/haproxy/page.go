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

// page is the statistics page: in CSV, and the one for people, whose head tells
// of the whole process. `stats scope` hides frontends on both, but not their
// connections in that head.
type page struct {
	csv   *fetch.Source
	whole *fetch.Source // the page for people, without any frontend
	asked uint64        // requests since the last reading that was taken in
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
	// By a connection of its own, a request for it could still be open in the
	// statistics when the request for the other page shows them.
	whole.ShareConnections(csv)
	return &page{csv: csv, whole: whole}, nil
}

// attempts is how often a page is read again that does not come out even: a
// connection may end between its two parts.
const attempts = 3

// read reads the frontends, and the process id where everything is to be on the
// page: it is an error then if it hides a frontend that has connections.
func (p *page) read(ctx context.Context, everything bool) (worker, error) {
	var hidden error
	for range attempts {
		var w worker
		var conns int64
		var unknown error // whether everything is on the page
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
		for _, f := range w.frontends {
			conns -= f.conns
		}
		if conns <= 0 {
			return w, nil
		}
		hidden = fmt.Errorf("HAProxy has more connections than the frontends on the page, by %d: `stats scope` hides a frontend; "+
			"leave it out, or read the runtime socket, or say with LASTCALL_HAPROXY_FRONTENDS which frontends to count", conns)
	}
	return worker{}, hidden
}

// head finds what the page for people says of the process.
var head = lazyregexp.New(`(?s)<b>pid = </b> (\d+) .*current conns = (\d+);`)

// readWhole returns the process id, and the connections of all frontends.
func (p *page) readWhole(ctx context.Context) (pid int, conns int64, err error) {
	p.asked++
	body, err := p.whole.Get(ctx, pageLimit)
	if err != nil {
		return 0, 0, fmt.Errorf("whether the page hides frontends: %w", err)
	}
	return parseWhole(body)
}

func parseWhole(body []byte) (pid int, conns int64, err error) {
	m := head().FindSubmatch(body)
	if m == nil {
		return 0, 0, errors.New("whether the page hides frontends is not known: the page for people, at the same address without `;csv`, " +
			"does not tell `current conns`; read the runtime socket, or say with LASTCALL_HAPROXY_FRONTENDS which frontends to count")
	}
	id, err1 := strconv.ParseInt(string(m[1]), 10, 32)
	conns, err2 := strconv.ParseInt(string(m[2]), 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("a number of the page for people cannot be: %w", err)
	}
	return int(id), conns, nil
}
