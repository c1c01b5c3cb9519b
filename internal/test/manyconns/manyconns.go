// Package manyconns opens large numbers of TCP connections for measurements.
//
// Each connection is one established socket, like that of a pod to a client on
// another node. The other end does not exist, and nothing is ever sent. The sockets
// are created with TCP_REPAIR, the kernel's way to move a connection to another
// machine, so 100,000 of them take a few seconds.
package manyconns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Most is the maximum number of connections to one port.
const Most = 1_000_000

const (
	// perAddress is how many connections go to one peer address, to the ports from
	// firstPort on.
	perAddress = 50_000
	firstPort  = 10_000
	// spare is the number of other files that this process may have open.
	spare = 1000
	// perHolder is the maximum number of connections of one process.
	perHolder = 15_000
)

// Connections stay open until Close.
type Connections struct{ holders []holder }

// holder is a process that only keeps connections open. It is needed because a
// process may open about 20,000 files, and raising this limit requires
// CAP_SYS_RESOURCE.
type holder struct {
	cmd  *exec.Cmd
	stay io.Closer // standard input; the process ends when it is closed
}

// Open opens n connections whose local end is 127.0.0.1:port, whether or not
// something listens there. They end with ctx, with Close, and when this process
// ends. It needs CAP_NET_ADMIN. A second call for the same port returns an error,
// because it would create the same connections again.
func Open(ctx context.Context, port, n int) (*Connections, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("port %d: must be from 1 to 65535", port)
	}
	if n < 0 || n > Most {
		return nil, fmt.Errorf("%d connections: must be from 0 to %d", n, Most)
	}
	most, err := filesAtOnce()
	if err != nil {
		return nil, err
	}
	c := new(Connections)
	for first := 0; first < n; first += most {
		err := c.open(ctx, port, first, min(first+most, n))
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: it needs CAP_NET_ADMIN; run it as root", err)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("making %d connections: %w", n, err), c.Close())
		}
	}
	return c, nil
}

// open creates the connections number first to end-1, and passes them to a process
// that keeps them open.
func (c *Connections) open(ctx context.Context, port, first, end int) error {
	cmd := exec.CommandContext(ctx, "cat")
	defer func() {
		for _, f := range cmd.ExtraFiles {
			_ = f.Close() // the holder has its own copy
		}
		cmd.ExtraFiles = nil // 100,000 of them would show in a memory measurement
	}()
	for i := first; i < end; i++ {
		f, err := connection(port, i)
		if err != nil {
			return err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	stay, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.holders = append(c.holders, holder{cmd, stay})
	return nil
}

// connection creates connection number i.
func connection(port, i int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "connection")
	peer := [4]byte{127, 77, byte(i / perAddress), 1}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: peer, Port: firstPort + i%perAddress}),
	); err != nil {
		return nil, errors.Join(fmt.Errorf("setting up connection %d to port %d: %w", i, port, err), f.Close())
	}
	return f, nil
}

// Close closes all connections at once. Nothing is sent.
func (c *Connections) Close() error {
	var errs []error
	for _, h := range c.holders {
		_ = h.stay.Close() // if the process has already ended, Wait returns why
		if err := h.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("the process that holds connections: %w", err))
		}
	}
	c.holders = nil
	return errors.Join(errs...)
}

// filesAtOnce returns how many connections this process can keep open itself.
func filesAtOnce() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	if limit.Cur < 2*spare {
		return 0, fmt.Errorf("this process may open %d files: allow at least %d (ulimit -n)", limit.Cur, 2*spare)
	}
	return int(min(limit.Cur-spare, perHolder)), nil
}
