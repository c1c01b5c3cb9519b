package haproxy

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
)

// frontend is the statistics of one frontend.
type frontend struct {
	name    string
	http    bool   // in mode http; otherwise in mode tcp
	conns   int64  // open connections
	opened  uint64 // connections since the process began
	muxed   int64  // open connections that already speak HTTP/1 or HTTP/2, idle or not
	streams int64  // requests on muxed connections that have begun and not ended
	total   uint64 // requests, or connections in mode tcp, since the process began
	itself  uint64 // requests that HAProxy has answered itself
}

// inFlight returns the work in flight. Connections in mode http that speak
// neither HTTP/1 nor HTTP/2 count as one each: they are in their TLS handshake,
// or speak HTTP/3, whose requests HAProxy does not show.
func (f frontend) inFlight() int64 {
	if !f.http {
		return f.conns
	}
	return f.streams + max(0, f.conns-f.muxed)
}

// arrived returns the number of requests or connections that have come.
func (f frontend) arrived() uint64 { return f.total - min(f.itself, f.total) }

// answersItself reports whether HAProxy itself has answered every request so
// far: the frontend serves statistics, metrics or health.
func (f frontend) answersItself() bool { return f.http && f.total > 0 && f.itself >= f.total }

// parse returns the frontends from the statistics in CSV.
func parse(page []byte) ([]frontend, error) {
	if !bytes.HasPrefix(page, []byte("# pxname,svname,")) {
		return nil, errors.New("the answer is not HAProxy's statistics in CSV; an address of the page ends in `;csv`")
	}
	if !bytes.HasSuffix(page, []byte("\n")) {
		return nil, errors.New("the statistics are cut short")
	}
	lines := csv.NewReader(bytes.NewReader(page[len("# "):]))
	head, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("the statistics' heading: %w", err)
	}
	column := make(map[string]int, len(head))
	for i, name := range head {
		column[name] = i
	}
	for _, name := range []string{
		"mode", "scur", "stot", "conn_tot", "req_tot", "intercepted",
		"h1_open_connections", "h1_open_streams", "h2_open_connections", "h2_backend_open_streams",
	} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("the statistics lack the column %s, which HAProxy 2.6 has; this one is too old", name)
		}
	}
	records, err := lines.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("the statistics: %w", err)
	}
	var frontends []frontend
	for _, record := range records {
		if record[column["svname"]] != "FRONTEND" {
			continue
		}
		r := row{record: record, column: column}
		f := frontend{
			name:   record[column["pxname"]],
			http:   record[column["mode"]] == "http",
			conns:  r.gauge("scur"),
			opened: r.count("conn_tot"),
			total:  r.count("stot"),
		}
		if f.http {
			f.muxed = r.gauge("h1_open_connections") + r.gauge("h2_open_connections")
			// For a frontend, this counts its clients' streams, despite the
			// name.
			f.streams = r.gauge("h1_open_streams") + r.gauge("h2_backend_open_streams")
			f.total = r.count("req_tot")
			f.itself = r.count("intercepted")
		}
		if r.err != nil {
			return nil, fmt.Errorf("the statistics of frontend %q: %w", f.name, r.err)
		}
		frontends = append(frontends, f)
	}
	if len(frontends) == 0 {
		return nil, errors.New("the statistics contain no frontend; an address that limits them to some proxies must include the frontends")
	}
	return frontends, nil
}

// row reads the numbers of one line, and keeps the first error.
type row struct {
	record []string
	column map[string]int
	err    error
}

// gauge reads a current number. It has 32 bits, so the sum of several fits into
// 64.
func (r *row) gauge(name string) int64 { return int64(r.number(name, 32)) } //nolint:gosec // 32 bits

// count reads a total.
func (r *row) count(name string) uint64 { return r.number(name, 64) }

func (r *row) number(name string, bits int) uint64 {
	n, err := strconv.ParseUint(r.record[r.column[name]], 10, bits)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", name, err)
	}
	return n
}
