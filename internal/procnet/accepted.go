package procnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// statisticsMost is a size limit, in bytes, that the kernel's statistics never
// reach.
const statisticsMost = 16 << 10

var errNoCount = errors.New("it does not contain PassiveOpens")

// Statistics are the kernel's statistics of a network namespace. They must not be
// used by several goroutines at once.
type Statistics struct {
	name string
	file *os.File
	text []byte
}

// KernelStatistics returns the statistics of the sidecar's own network namespace.
func KernelStatistics() *Statistics { return &Statistics{name: "/proc/net/snmp"} }

// Accepted returns how many TCP connections have ever been opened to the namespace,
// whether or not their app has accepted them. The kernel counts a connection just
// before it adds it to its tables.
func (s *Statistics) Accepted() (uint64, error) {
	n, err := s.read()
	if err != nil {
		return 0, fmt.Errorf("reading the kernel's statistics from %s: %w", s.name, err)
	}
	return n, nil
}

func (s *Statistics) read() (uint64, error) {
	if s.file == nil {
		file, err := os.Open(s.name)
		if err != nil {
			return 0, err
		}
		s.file, s.text = file, make([]byte, statisticsMost)
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := s.file.Read(s.text) // one read returns all of it
	if err != nil {
		return 0, err
	}
	return passiveOpens(s.text[:n])
}

// passiveOpens finds the number by its position: a heading and a line of values
// both begin with "Tcp:".
func passiveOpens(text []byte) (uint64, error) {
	var heading []byte
	for line := range bytes.Lines(text) {
		switch {
		case !bytes.HasPrefix(line, []byte("Tcp:")):
		case heading == nil:
			heading = line
		default:
			return field(heading, line, "PassiveOpens")
		}
	}
	return 0, errNoCount
}

func field(heading, line []byte, name string) (uint64, error) {
	at := 0
	for title := range bytes.FieldsSeq(heading) {
		if string(title) == name {
			break
		}
		at++
	}
	for value := range bytes.FieldsSeq(line) {
		if at == 0 {
			n, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil {
				return 0, err
			}
			return n, nil
		}
		at--
	}
	return 0, errNoCount
}
