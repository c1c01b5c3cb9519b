package tcp

// opening judges a connection that has received no more segments than a TLS
// handshake has, whoever has sent last. Some servers send their tickets, or all
// that they have to send, before the client ends the handshake.
func (m *memory) opening(s *socket, known bool, v *view) (activity, bool) {
	came, went := !known || s.dataIn != m.dataIn, !known || s.sent != m.sent
	m.finished = m.finished || m.isFinished(s)
	if came || went {
		m.touch(s, v, came, went)
	}
	if int64(s.recvAge)-int64(s.sentAge) >= afterHandshake && !m.finished {
		m.settled = true
		return m.completed(s, v), came
	}
	return handshake, came
}

// isFinished reports whether the second segment with data only ended a TLS
// handshake. With a request in it, it would be larger.
func (m *memory) isFinished(s *socket) bool {
	switch {
	case s.dataIn != tlsOpening:
		return false
	case m.dataIn == 1:
		return s.received()-m.recv <= finishedMaximum
	case s.largest >= largeHello:
		return s.received()-uint64(s.largest) <= finishedMaximum
	}
	// The sizes of TLS 1.2 with a resumed session, and of TLS 1.3 and 1.2 with
	// today's ciphers.
	switch s.received() {
	case paddedHello + 51, paddedHello + 64, paddedHello + 80, paddedHello + 93:
		return true
	}
	return false
}
