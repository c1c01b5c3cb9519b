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

// Table is where sockets are read from: the names of the kernel's files.
type Table []string

// Kernel returns the table of the sidecar's own network namespace.
func Kernel() Table { return Table{"/proc/net/tcp", "/proc/net/tcp6"} }

// Listeners returns the ports that somebody accepts connections on. It reads no
// further than the listening sockets, which the kernel prints first, so that
// its cost does not grow with connections.
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

// ListeningSockets returns the sockets on which somebody accepts connections,
// by port, as the kernel numbers them: a program that starts again has others.
// Where the kernel gives a socket no number, it is zero. Its cost is that of
// Listeners.
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

// Unfinished returns who is connected to port and may still be sent something:
// the other ends of its connections, as the kernel prints them. Left out, next
// to connections that are over, are those of which this side has closed its
// half and the other side has received all of it (FIN_WAIT2): they linger for
// a minute when clients do not close theirs, and nothing comes of them.
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
	port   int    // of this side
	remote []byte // ADDRESS:PORT of the other side in hex, good until the next line
	state  uint64
	inode  uint64 // zero where the line does not hold it
}

// each calls visit for each socket of each file; visit returns false to go on
// with the next file. A file that is not there (no IPv6) holds no sockets, as
// long as another is.
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
		return fmt.Errorf("reading the pod's sockets: none of %v is there: /proc must be mounted", []string(t))
	}
	return nil
}

// parse reads one file: a heading, then a line for each socket, of which the
// second field is the local ADDRESS:PORT, the third the other side's, and the
// fourth the state, all in hex; the tenth is the socket's number.
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
			inode = 0 // too short a line, or another form: it is not known
		}
		if !visit(socket{port: int(port), remote: fields[2], state: state, inode: inode}) {
			return nil
		}
	}
	return lines.Err()
}
