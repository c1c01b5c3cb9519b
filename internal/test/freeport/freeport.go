// Package freeport finds ports for programs that cannot choose a free port by
// themselves.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	lowest = 10_000
	// tries limits how many ports are tried.
	tries = 1000
)

// On returns a port of host, an address of this machine, on which nothing listens.
// It is not in the kernel's range for outgoing connections, one of which might
// otherwise take it before the program does. A port is not returned again while the
// process that got it lives: its program may not listen yet, or may be about to
// listen again.
func On(host string) (int, error) {
	below, err := outgoing()
	if err != nil {
		return 0, err
	}
	var last error
	for range tries {
		port := lowest + rand.IntN(below-lowest)
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			err = errors.Join(l.Close(), reserve(port))
		}
		if err == nil {
			return port, nil
		}
		last = err
	}
	return 0, fmt.Errorf("no port of %s from %d to %d is free: %w", host, lowest, below-1, last)
}

// reserve fails if a running process has reserved the port. It binds an abstract
// socket name, which all processes of a network namespace share. The kernel frees
// the name when the process ends.
func reserve(port int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reserving port %d: %w", port, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@lastcall-port-" + strconv.Itoa(port)}); err != nil {
		return errors.Join(fmt.Errorf("reserving port %d: %w", port, err), unix.Close(fd))
	}
	return nil // fd stays open
}

const loopback = "127.0.0.1"

// Port is On for 127.0.0.1.
func Port(t testing.TB) int {
	t.Helper()
	port, err := On(loopback)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Address returns a Port as HOST:PORT.
func Address(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort(loopback, strconv.Itoa(Port(t)))
}

// outgoing returns the lowest port for outgoing connections.
func outgoing() (int, error) {
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	if first < 2*lowest { // an unusual setting: accept the risk of using this range
		first = 1 << 16
	}
	return first, nil
}
