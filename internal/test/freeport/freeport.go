// Package freeport finds ports for programs that cannot choose one themselves
// and tell it.
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
	// tries bounds how many ports are looked at.
	tries = 1000
)

// On returns a port of host, an address of this machine, that nobody listens
// on. It is none of those that the kernel gives to outgoing connections: one of
// these would take it now and then before the program does. Nor is it one that
// any process which is still there has found so before: its program may not
// listen yet, or be about to do so again.
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

// reserve fails if a process has reserved the port that has not ended since. A
// name for sockets that is in no file system is what all processes of a network
// share, and the kernel forgets it with the process that has taken it.
func reserve(port int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reserving port %d: %w", port, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@lastcall-port-" + strconv.Itoa(port)}); err != nil {
		return errors.Join(fmt.Errorf("reserving port %d: %w", port, err), unix.Close(fd))
	}
	return nil // and fd stays open
}

const loopback = "127.0.0.1"

// Port returns a port of 127.0.0.1, as On finds it.
func Port(t testing.TB) int {
	t.Helper()
	port, err := On(loopback)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Address returns Port with the address.
func Address(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort(loopback, strconv.Itoa(Port(t)))
}

// outgoing returns the lowest port of outgoing connections.
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
	if first < 2*lowest { // set to something unusual: above it, then, and at a risk
		first = 1 << 16
	}
	return first, nil
}
