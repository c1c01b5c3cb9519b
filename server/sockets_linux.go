package server

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketBytes bounds what the kernel holds of what a caller has sent and of
	// what it is sent, for each connection; the kernel doubles it. In a cgroup
	// of version 2 that counts as the container's memory.
	socketBytes = 8 << 10
	// unacknowledged is how long a caller may leave what it was sent in the
	// kernel, also after the connection was closed here.
	unacknowledged = 30 * time.Second
)

// bounded sets what accepted connections take over from the listening socket.
func bounded(_, _ string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_RCVBUF, socketBytes},
			{unix.SOL_SOCKET, unix.SO_SNDBUF, socketBytes},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds())},
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
