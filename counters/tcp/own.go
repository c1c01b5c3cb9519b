package tcp

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownEnds returns the local addresses of this process's connections to ports,
// at any destination: they are compared with the peers of the app's
// connections. It returns none if they cannot be read.
func ownEnds(ports []int) map[netip.AddrPort]bool {
	ends := make(map[netip.AddrPort]bool)
	files, _ := os.ReadDir("/proc/self/fd") // on an error, use what was read
	for _, f := range files {
		fd, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		// A file that is not a socket, or was closed meanwhile, has no peer.
		peer, err := unix.Getpeername(fd)
		if err != nil || !slices.Contains(ports, int(addrPort(peer).Port())) {
			continue
		}
		if local, err := unix.Getsockname(fd); err == nil {
			ends[addrPort(local)] = true
		}
	}
	return ends
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) //nolint:gosec // from the kernel
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)) //nolint:gosec // from the kernel
	}
	return netip.AddrPort{}
}

// parseRemote parses ADDRESS:PORT as /proc/net/tcp prints it: the address in
// words of four bytes, each in this machine's byte order.
func parseRemote(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	words, err := hex.DecodeString(address)
	if err != nil || len(words)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	remote, ok := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(remote.Unmap(), uint16(number)), ok
}
