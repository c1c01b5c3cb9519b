package freeport

import (
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNobodyListens(t *testing.T) {
	below, err := outgoing()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		port, err := On("127.0.0.1")
		if err != nil || port < lowest || port >= below {
			t.Fatalf("port %d, %v, want one from %d to %d", port, err, lowest, below-1)
		}
		l, err := net.Listen("tcp", Address(t))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

func TestNobodyGetsItTwice(t *testing.T) {
	if err := reserve(Port(t)); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("reserved again: %v", err)
	}
}

func TestNotAnAddressOfThisMachine(t *testing.T) {
	if port, err := On("192.0.2.1"); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("port %d, %v", port, err)
	}
}
