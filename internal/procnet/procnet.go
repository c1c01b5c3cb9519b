// Package procnet reads the TCP sockets of the sidecar's network namespace,
// which is that of the whole pod, from /proc/net/tcp and /proc/net/tcp6.
package procnet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// The states of a socket as /proc/net/tcp prints them (include/net/tcp_states.h).
const (
	timeWait = 0x06
	closed   = 0x07
	listen   = 0x0A
)

// Sockets is what a look at one local port has shown.
type Sockets struct {
	Listening bool // somebody accepts connections on the port
	Open      int  // connections on the port that are not over, whoever waits for whom
}

// Table is where sockets are read from: the names of the kernel's files.
type Table []string

// Kernel returns the table of the sidecar's own network namespace.
func Kernel() Table { return Table{"/proc/net/tcp", "/proc/net/tcp6"} }

// Listening tells whether somebody accepts connections on port. It reads no
// further than the listening sockets, which the kernel prints first, so that
// its cost does not grow with connections.
func (t Table) Listening(port int) (bool, error) {
	found := false
	err := t.each(func(local int, state uint64) bool {
		found = found || state == listen && local == port
		return state == listen && !found
	})
	return found, err
}

// Look tells all about one port.
func (t Table) Look(port int) (Sockets, error) {
	var s Sockets
	err := t.each(func(local int, state uint64) bool {
		switch {
		case local != port || state == timeWait || state == closed:
		case state == listen:
			s.Listening = true
		default:
			s.Open++
		}
		return true
	})
	return s, err
}

// each calls visit for each socket of each file; visit returns false to go on
// with the next file. A file that is not there (no IPv6) holds no sockets, as
// long as another is.
func (t Table) each(visit func(port int, state uint64) bool) error {
	read := 0
	for _, name := range t {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the pod's sockets: %w", err)
		}
		err = parse(f, visit)
		_ = f.Close() // only read
		if err != nil {
			return fmt.Errorf("reading the pod's sockets from %s: %w", name, err)
		}
		read++
	}
	if read == 0 {
		return fmt.Errorf("reading the pod's sockets: none of %v is there: /proc must be mounted", []string(t))
	}
	return nil
}

// parse reads one file: a heading, then a line for each socket, of which the
// second field is the local ADDRESS:PORT and the fourth the state, both in hex.
func parse(r io.Reader, visit func(port int, state uint64) bool) error {
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 4 {
			return fmt.Errorf("a line of %d fields: %q", len(fields), lines.Bytes())
		}
		colon := bytes.LastIndexByte(fields[1], ':')
		port, err := strconv.ParseUint(string(fields[1][colon+1:]), 16, 16)
		if err != nil {
			return fmt.Errorf("local port: %w", err)
		}
		state, err := strconv.ParseUint(string(fields[3]), 16, 8)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		if !visit(int(port), state) {
			return nil
		}
	}
	return lines.Err()
}
