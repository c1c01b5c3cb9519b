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
	synRecv  = 0x03
	finWait2 = 0x05
	timeWait = 0x06
	closed   = 0x07
	listen   = 0x0A
)

// Table holds the names of the kernel's files that sockets are read from.
type Table []string

// Kernel returns the table of the sidecar's own network namespace.
func Kernel() Table { return Table{"/proc/net/tcp", "/proc/net/tcp6"} }

// Listeners returns the ports with a listening socket. It stops reading after the
// listening sockets, which the kernel prints first, so its cost does not grow with
// the number of connections.
func (t Table) Listeners() (map[int]bool, error) {
	ports := make(map[int]bool)
	err := t.each(func(s socket) bool {
		if s.state == listen {
			ports[s.port] = true
		}
		return s.state == listen
	})
	return ports, err
}

// ListeningSockets returns the inode numbers of the listening sockets, by port. A
// program that starts again has sockets with other numbers. The number is zero if
// the kernel does not report one. The cost is that of Listeners.
func (t Table) ListeningSockets() (map[int][]uint64, error) {
	sockets := make(map[int][]uint64)
	err := t.each(func(s socket) bool {
		if s.state == listen {
			sockets[s.port] = append(sockets[s.port], s.inode)
		}
		return s.state == listen
	})
	return sockets, err
}

// Unfinished returns the remote addresses, as the kernel prints them, of the
// connections to port that may still have something to send. It leaves out closed
// connections, and those that this side has half-closed and whose remote side has
// received everything (FIN_WAIT2): they stay for a minute if the client does not
// close its side, and carry no work.
func (t Table) Unfinished(port int) (map[string]bool, error) {
	remotes := make(map[string]bool)
	err := t.each(func(s socket) bool {
		switch {
		case s.port != port:
		case s.state == listen, s.state == synRecv, s.state == finWait2, s.state == timeWait, s.state == closed:
		default:
			remotes[string(s.remote)] = true
		}
		return true
	})
	return remotes, err
}

// socket is one line of the table.
type socket struct {
	port   int    // local
	remote []byte // remote ADDRESS:PORT in hex, valid until the next line
	state  uint64
	inode  uint64 // zero if the line does not contain it
}

// each calls visit for each socket of each file. If visit returns false, each
// continues with the next file. A missing file (no IPv6) counts as empty, as long
// as the other one exists.
func (t Table) each(visit func(socket) bool) error {
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
		return fmt.Errorf("reading the pod's sockets: none of %v exists: /proc must be mounted", []string(t))
	}
	return nil
}

// parse reads one file: a heading, then a line for each socket. The second field of
// a line is the local ADDRESS:PORT, the third the remote one, and the fourth the
// state, all in hex. The tenth is the socket's inode number.
func parse(r io.Reader, visit func(socket) bool) error {
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		const needed, most = 4, 10
		var fields [most][]byte
		n := 0
		for field := range bytes.FieldsSeq(lines.Bytes()) {
			fields[n] = field
			if n++; n == len(fields) {
				break
			}
		}
		if n < needed {
			return fmt.Errorf("a line of %d fields: %q", n, lines.Bytes())
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
		inode, err := strconv.ParseUint(string(fields[most-1]), 10, 64)
		if err != nil {
			inode = 0 // unknown: the line is too short or has another format
		}
		if !visit(socket{port: int(port), remote: fields[2], state: state, inode: inode}) {
			return nil
		}
	}
	return lines.Err()
}
