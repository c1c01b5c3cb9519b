package haproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strconv"
)

// frontendsOnly asks for the statistics of all frontends only.
const frontendsOnly = "show stat -1 1 -1"

var (
	errCutShort = errors.New("the answer is cut short")
	errNoWorker = errors.New("the worker has ended")
	errChanging = errors.New("the workers keep changing")
)

// socket is a runtime socket of HAProxy: of a worker, or of the master.
type socket struct {
	path string
}

// worker holds the statistics of one process.
type worker struct {
	pid       int // 0 if not reported
	frontends []frontend
}

// read asks for the statistics. complete reports whether all processes were
// asked. Only the master can do this: it also knows the old workers.
func (s socket) read(ctx context.Context) (workers []worker, complete bool, err error) {
	answer, err := s.ask(ctx, "show proc")
	if err != nil {
		return nil, false, err
	}
	if isMaster(answer) {
		workers, err = s.readWorkers(ctx)
		return workers, true, err
	}
	answer, err = s.ask(ctx, "show info;"+frontendsOnly)
	if err != nil {
		return nil, false, err
	}
	info, stats, found := bytes.Cut(answer, []byte("\n\n"))
	if !found {
		return nil, false, errCutShort
	}
	w := worker{}
	if w.pid, err = parsePid(info); err != nil {
		return nil, false, err
	}
	w.frontends, err = parse(stats)
	return []worker{w}, false, err
}

// readWorkers asks the master for its workers, each worker for its statistics,
// and then the master again. If a new worker has appeared meanwhile, it would
// be missing, and readWorkers starts over. A worker that has gone has no more
// work.
func (s socket) readWorkers(ctx context.Context) (workers []worker, err error) {
	for range 3 {
		workers, err = s.tryWorkers(ctx)
		if err == nil || !errors.Is(err, errChanging) && !errors.Is(err, errCutShort) {
			return workers, err
		}
	}
	return nil, err
}

func (s socket) tryWorkers(ctx context.Context) ([]worker, error) {
	pids, err := s.pids(ctx)
	if err != nil {
		return nil, err
	}
	var workers []worker
	asked := make(map[int]bool)
	for _, pid := range pids {
		asked[pid] = true
		answer, err := s.ask(ctx, fmt.Sprintf("@!%d %s", pid, frontendsOnly))
		if err == nil && bytes.HasPrefix(answer, []byte("Can't ")) {
			err = errNoWorker
		}
		if errors.Is(err, errNoWorker) {
			continue // the list that is read below must agree
		}
		if err != nil {
			return nil, fmt.Errorf("worker %d: %w", pid, err)
		}
		asked[pid] = false
		w := worker{pid: pid}
		if w.frontends, err = parse(answer); err != nil {
			return nil, fmt.Errorf("worker %d: %w", pid, err)
		}
		workers = append(workers, w)
	}
	pids, err = s.pids(ctx)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if unanswered, known := asked[pid]; !known || unanswered {
			return nil, errChanging
		}
	}
	return workers, nil
}

func (s socket) pids(ctx context.Context) ([]int, error) {
	answer, err := s.ask(ctx, "show proc")
	if err != nil {
		return nil, err
	}
	return parseProc(answer)
}

// ask sends one line to the socket and returns the whole answer, which ends in
// an empty line.
func (s socket) ask(ctx context.Context, command string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, explain(err)
	}
	defer func() { _ = conn.Close() }() // read to its end
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	answer, err := talk(conn, command)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %q: %w", s.path, command, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("%s: %q: %w", s.path, command, err)
	}
	return answer, nil
}

// explain adds advice to an error.
func explain(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: give the socket a mode or a group that lets this container's user in", err)
	}
	return err
}

// pageLimit bounds how many bytes are read. A frontend has less than a
// kilobyte.
const pageLimit = 8 << 20

func talk(conn net.Conn, command string) ([]byte, error) {
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return nil, fmt.Errorf("%w: %w", errCutShort, err)
	}
	// The master keeps the connection open for more commands until the client
	// closes its half.
	if half, ok := conn.(*net.UnixConn); ok {
		if err := half.CloseWrite(); err != nil {
			return nil, fmt.Errorf("%w: %w", errCutShort, err)
		}
	}
	answer, err := io.ReadAll(io.LimitReader(conn, pageLimit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errCutShort, err)
	case len(answer) > pageLimit:
		return nil, fmt.Errorf("the answer is longer than %d bytes", pageLimit)
	case !bytes.HasSuffix(answer, []byte("\n\n")):
		return nil, errCutShort
	}
	return bytes.TrimSuffix(answer, []byte("\n")), nil
}

// isMaster reports whether an answer to `show proc` is the master's: a worker
// does not know the command.
func isMaster(answer []byte) bool { return bytes.HasPrefix(answer, []byte("#<PID>")) }

// parseProc returns the process ids of all workers, including old ones, from
// the master's answer to `show proc`. Its lines contain pid, type, number of
// reloads since, uptime and version, and headings begin with #.
func parseProc(answer []byte) ([]int, error) {
	if !isMaster(answer) {
		return nil, errors.New("the answer is not that of HAProxy's master to `show proc`")
	}
	var pids []int
	master := false
	lines := bufio.NewScanner(bytes.NewReader(answer))
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 2 || fields[0][0] == '#' {
			continue
		}
		switch string(fields[1]) {
		case "master":
			master = true
		case "worker":
			pid, err := strconv.ParseUint(string(fields[0]), 10, 31)
			if err != nil {
				return nil, fmt.Errorf("a worker's process id: %w", err)
			}
			pids = append(pids, int(pid))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the list of processes: %w", err)
	}
	if !master {
		return nil, errCutShort
	}
	return pids, nil
}

// parsePid returns the process id from a worker's answer to `show info`.
func parsePid(info []byte) (int, error) {
	for line := range bytes.Lines(info) {
		value, found := bytes.CutPrefix(line, []byte("Pid: "))
		if !found {
			continue
		}
		pid, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
		if err != nil {
			return 0, fmt.Errorf("the process id: %w", err)
		}
		return int(pid), nil
	}
	return 0, errors.New("the answer is not that of HAProxy to `show info`")
}
