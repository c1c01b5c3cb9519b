package tcp

// peerClosed reports whether the peer has closed its half, which the kernel
// counts as a byte received. appClosed reports whether the app has closed its
// half, which the kernel counts as a byte to be sent.
func (s *socket) peerClosed() bool {
	return s.state == closeWait || s.state == lastAck || s.state == closing
}

func (s *socket) appClosed() bool {
	return s.state == finWait1 || s.state == lastAck || s.state == closing
}

// received returns the number of bytes of data that were received.
func (s *socket) received() uint64 { return without(s.recv, s.peerClosed()) }

// unreadData reports whether data waits for the app, and unsentData whether
// data waits for the peer.
func (s *socket) unreadData() bool { return without(uint64(s.unread), s.peerClosed()) > 0 }

func (s *socket) unsentData() bool { return without(uint64(s.unsent), s.appClosed()) > 0 }

func without(n uint64, fin bool) uint64 {
	if fin && n > 0 {
		return n - 1
	}
	return n
}

// ackFollows reports whether the peer has acknowledged something in a later
// tick than that of its last data. If the peer has closed its half, its FIN may
// have carried the acknowledgement, which then proves nothing.
func (s *socket) ackFollows() bool {
	return s.ackAge < s.recvAge && s.recvAge-s.ackAge <= ackSoon && !s.peerClosed()
}
