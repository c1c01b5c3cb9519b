package counting

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stateEstablished is that state in /proc/net/tcp.
const stateEstablished = "01"

var errNoSocket = errors.New("a line that does not describe a socket")

// established counts the open connections by local port. It reads those of its
// thread's namespace, because the process's first thread may be in the clients'
// namespace.
func established() (map[int]int, error) {
	open := make(map[int]int)
	for _, table := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		if err := countIn(table, open); err != nil {
			return nil, fmt.Errorf("reading %s: %w", table, err)
		}
	}
	return open, nil
}

func countIn(table string, open map[int]int) error {
	file, err := os.Open(table)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	lines := bufio.NewScanner(file)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			return fmt.Errorf("%w: %q", errNoSocket, lines.Text())
		}
		if fields[3] != stateEstablished {
			continue
		}
		port, err := strconv.ParseUint(fields[1][strings.LastIndexByte(fields[1], ':')+1:], 16, 16)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoSocket, err)
		}
		open[int(port)]++
	}
	return lines.Err()
}
