package tcp

// peerClosed reports whether the peer has closed its half, which the kernel
// counts as a byte received, and appClosed whether the app has closed its own,
// which it counts as a byte to be sent.
func (s *socket) peerClosed() bool {
	return s.state == closeWait || s.state == lastAck || s.state == closing
}

func (s *socket) appClosed() bool {
	return s.state == finWait1 || s.state == lastAck || s.state == closing
}

// received returns the bytes of data that have come.
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
// tick than that in which its last data came. Where it has closed its half,
// that may have done it, and says nothing.
func (s *socket) ackFollows() bool {
	return s.ackAge < s.recvAge && s.recvAge-s.ackAge <= ackSoon && !s.peerClosed()
}
