// Package manyconns makes as many TCP connections as a measurement asks for.
//
// Each is one established socket, as a pod has one for a client on another
// node: the other end is nowhere, and nothing is ever sent. The kernel makes
// them by TCP_REPAIR, its way of moving a connection from one machine to
// another. So 100,000 of them take a few seconds.
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

// Most is how many connections there can be to one port.
const Most = 1_000_000

const (
	// perAddress is how many connections are made to one address of a peer,
	// from firstPort on.
	perAddress = 50_000
	firstPort  = 10_000
	// spare are the files that this process may have open besides.
	spare = 1000
	// perHolder is the most that one process holds.
	perHolder = 15_000
)

// Connections are open until Close.
type Connections struct{ holders []holder }

// holder is a process that does nothing, and has the connections open. A
// process may open 20,000 files or so, and raising that takes a right of its
// own, CAP_SYS_RESOURCE.
type holder struct {
	cmd  *exec.Cmd
	stay io.Closer // its standard input, at whose end it ends
}

// Open makes n connections whose local end is 127.0.0.1:port, whether somebody
// listens there or not. They end with ctx, with Close, and when this process
// does. It needs CAP_NET_ADMIN. A second call for the same port is an error:
// it would make the same connections again.
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

// open makes the connections from number first up to number end, and hands
// them to a process that holds them.
func (c *Connections) open(ctx context.Context, port, first, end int) error {
	cmd := exec.CommandContext(ctx, "cat")
	defer func() {
		for _, f := range cmd.ExtraFiles {
			_ = f.Close() // the holder has its own
		}
		cmd.ExtraFiles = nil // 100,000 of them would be seen in what is measured
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

// connection makes the one with number i.
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

// Close ends all of them at once, without a word to anybody.
func (c *Connections) Close() error {
	var errs []error
	for _, h := range c.holders {
		_ = h.stay.Close() // where it has ended already, Wait says why
		if err := h.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("the process that holds connections: %w", err))
		}
	}
	c.holders = nil
	return errors.Join(errs...)
}

// filesAtOnce is how many connections this process can have open by itself.
func filesAtOnce() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	if limit.Cur < 2*spare {
		return 0, fmt.Errorf("this process may open %d files: allow it %d at least (ulimit -n)", limit.Cur, 2*spare)
	}
	return int(min(limit.Cur-spare, perHolder)), nil
}
