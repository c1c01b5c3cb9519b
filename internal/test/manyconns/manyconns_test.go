package manyconns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lastcall/internal/procnet"
	"lastcall/internal/test/wait"
)

func TestOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	const n = perAddress + 10 // needs more than one address and more than one process
	c, err := Open(t.Context(), port, n)
	if os.Geteuid() != 0 {
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "as root") {
			t.Fatalf("got %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	// While other connections come and go, the kernel's file may list some of a
	// large table twice, or omit some.
	wait.For(t, "all to be open", func() error {
		remotes, err := procnet.Kernel().Unfinished(port)
		if err == nil && len(remotes) != n {
			err = fmt.Errorf("got %d, want %d open", len(remotes), n)
		}
		return err
	})
	if again, err := Open(t.Context(), port, 1); err == nil {
		again.Close()
		t.Error("the same connection was made twice")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if remotes, err := procnet.Kernel().Unfinished(port); err != nil || len(remotes) != 0 {
		t.Errorf("after Close: %d, %v", len(remotes), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, bad := range [][2]int{{0, 1}, {65536, 1}, {80, -1}, {80, Most + 1}} {
		if _, err := Open(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("port %d, %d connections: no error", bad[0], bad[1])
		}
	}
}
