package nginx

import (
	"errors"
	"fmt"
	"strconv"

	"lastcall/internal/lazyregexp"
)

// status is the content of the page.
type status struct {
	requests         uint64 // connections, including idle ones
	active           int64  // connections, idle ones among them
	reading, writing int64
}

// inFlight is the number of requests in flight, without the one that requests
// the page.
func (s status) inFlight() int64 { return s.reading + s.writing - 1 }

// page matches the whole page, as nginx and its derivatives write it. Some have
// further numbers after the number of requests.
var page = lazyregexp.New(`^Active connections:\s*(\d+)\s+` +
	`server accepts handled requests(?: \w+)*\s+\d+ \d+ (\d+)(?: \d+)*\s+` +
	`Reading: (\d+) Writing: (\d+) Waiting: \d+\s*$`)

// parse parses the page.
func parse(body []byte) (status, error) {
	m := page().FindSubmatch(body)
	if m == nil {
		return status{}, errors.New("the answer is not stub_status: the location must hold `stub_status;`")
	}
	active, err0 := strconv.ParseInt(string(m[1]), 10, 32)
	requests, err1 := strconv.ParseUint(string(m[2]), 10, 64)
	reading, err2 := strconv.ParseInt(string(m[3]), 10, 32)
	writing, err3 := strconv.ParseInt(string(m[4]), 10, 32)
	if err := errors.Join(err0, err1, err2, err3); err != nil {
		return status{}, fmt.Errorf("a number on the page is out of range: %w", err)
	}
	if active == 0 || requests == 0 {
		return status{}, errors.New("the page does not count the connection and the request that ask for it: it seems to be a cached copy, or another program's")
	}
	return status{requests: requests, active: active, reading: reading, writing: writing}, nil
}
