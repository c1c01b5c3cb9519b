package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBytes is the size of the kernel's receive and send buffers of each
// connection; the kernel doubles it. With cgroup version 2, the buffers count
// as the container's memory.
const socketBytes = 8 << 10

// bounded sets options of the listening socket that accepted connections
// inherit.
func bounded(_, _ string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_RCVBUF, socketBytes},
			{unix.SOL_SOCKET, unix.SO_SNDBUF, socketBytes},
		} {
			if failed = unix.SetsockoptInt(int(fd), o.level, o.name, o.value); failed != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// unreceived reports whether the kernel holds data that the caller has not
// received.
func unreceived(c *net.TCPConn) bool {
	socket, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = socket.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return err == nil && n > 0
}
