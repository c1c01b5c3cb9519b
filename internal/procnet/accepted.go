package procnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// statisticsMost is more than the kernel's statistics are long.
const statisticsMost = 16 << 10

var errNoCount = errors.New("it does not tell PassiveOpens")

// Statistics are the kernel's, of a network namespace. They are for one caller
// at a time.
type Statistics struct {
	name string
	file *os.File
	text []byte
}

// KernelStatistics returns those of the sidecar's own network namespace.
func KernelStatistics() *Statistics { return &Statistics{name: "/proc/net/snmp"} }

// Accepted tells how many TCP connections have ever been made to the
// namespace, whether their app has accepted them or not. The kernel counts each
// just before it has it in its tables.
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
	n, err := s.file.Read(s.text) // the kernel prints all of it at once
	if err != nil {
		return 0, err
	}
	return passiveOpens(s.text[:n])
}

// passiveOpens finds the number in a heading and a line that both begin with
// "Tcp:", field by field.
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
