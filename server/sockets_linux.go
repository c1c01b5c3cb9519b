package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBytes bounds what the kernel holds of what a caller has sent and of
// what it is sent, for each connection; the kernel doubles it. In a cgroup of
// version 2 that counts as the container's memory.
const socketBytes = 8 << 10

// bounded sets what accepted connections take over from the listening socket.
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

// unreceived reports whether the kernel holds something for the caller.
func unreceived(c *net.TCPConn) bool {
	socket, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = socket.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return err == nil && n > 0
}
