package tcp

import "time"

// order is what is known of the order in which the last data of a connection
// was received and sent.
type order uint8

const (
	answered  order = iota // something was sent after all that was received, or nothing was ever received
	waiting                // something was received after all that was sent
	unordered              // either of the two
	slight                 // too little was received since the last answer to be a request
	interim                // too little was sent since the request to be its answer
	streaming              // the answer comes in pieces, and may go on
)

// doubtful tells whether a connection may be in use or not.
func (o order) doubtful() bool { return o >= unordered }

const (
	// requestMinimum is the least that can be an HTTP request: "GET / HTTP/1.0"
	// and two ends of line. Less is a frame of HTTP/2 that asks for nothing (an
	// acknowledgement, a window update), or the beginning of a request, on
	// which the app cannot be at work yet.
	requestMinimum = 18
	// interimMaximum is the length of "HTTP/1.1 100 Continue" and two ends of
	// line. An answer that ends a request is longer.
	interimMaximum = 25
	// farewellMaximum is as much as a peer may say before it closes an idle
	// connection: TLS's close_notify, HTTP/2's GOAWAY.
	farewellMaximum = 64
	// ackSoon bounds, in ms, how much later than data its acknowledgement may
	// come: TCP waits for 200 ms at most, then it travels. What comes later
	// belongs to a keep-alive probe, of which none is sent in the first second.
	ackSoon = 500
	// handshakeSegments have come, without data, when a connection is made.
	handshakeSegments = 2
)

// memory is what is kept of a connection from one look to the next.
type memory struct {
	order  order
	own    bool   // it is the sidecar's
	unsent bool   // data was waiting for the peer
	look   uint32 // when it was seen last

	recv, sent         uint64 // bytes of data
	idleRecv, idleSent uint64 // and when it was last answered
	segsIn, dataIn     uint32
	pureIn, pureOut    uint32 // segments without data
}

// fresh is the past of a connection that has just been made.
func fresh() memory { return memory{pureIn: handshakeSegments} }

// peerClosed tells whether the peer has closed its half, which the kernel
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

// unreadData tells whether data waits for the app, and unsentData whether data
// waits for the peer.
func (s *socket) unreadData() bool { return without(uint64(s.unread), s.peerClosed()) > 0 }
func (s *socket) unsentData() bool { return without(uint64(s.unsent), s.appClosed()) > 0 }

func without(n uint64, fin bool) uint64 {
	if fin && n > 0 {
		return n - 1
	}
	return n
}

// silent is for how long no data was received or sent.
func (s *socket) silent() time.Duration {
	return time.Duration(min(s.recvAge, s.sentAge)) * time.Millisecond
}

// next takes in one look at the connection. known tells whether m is its past;
// otherwise it was made before the first look.
func (m *memory) next(s *socket, known bool) {
	if !known && s.dataIn <= 1 {
		// All data came in one segment: there is no past that matters.
		own := m.own
		*m, known = fresh(), true
		m.own = own
	}
	m.order = m.judge(s, known)
	m.recv, m.sent, m.unsent = s.received(), s.sent, s.unsentData()
	m.segsIn, m.dataIn = s.segsIn, s.dataIn
	m.pureIn, m.pureOut = s.segsIn-s.dataIn, s.segsOut-s.dataOut
	if m.order == answered || !known {
		m.idleRecv, m.idleSent = m.recv, m.sent
	}
}

// judge tells the order that a look at the connection shows.
//
// The kernel keeps the times of the last data in ticks of 1 to 10 ms. A request
// and its answer, or an answer and the next request, often fall into one; their
// order is then told by what was received or sent in between, and by who has
// acknowledged what, if it can be told at all.
func (m *memory) judge(s *socket, known bool) order {
	came := !known || s.received() != m.recv
	went := !known || s.sent != m.sent
	switch {
	case s.received() == 0:
		return answered // nothing was asked
	case s.sent == 0:
		return m.asked(s, known)
	case !came && !went:
		return m.later(s)
	case !went, s.recvAge < s.sentAge:
		return m.asked(s, known)
	case !came:
		if m.order == streaming || m.order == answered && !m.unsent {
			return streaming // more, and nothing was asked for since
		}
		return m.answeredBy(s, known)
	case s.recvAge > s.sentAge:
		return m.answeredBy(s, known)

	// From here on, the last data came and went in one tick.
	case s.unsentData(), s.ackFollows():
		// Who asks anew has received the answer before, and acknowledged it.
		// So what is not acknowledged yet, or was after the last data came,
		// has been sent after that.
		return m.answeredBy(s, known)
	case known && m.order == answered && s.dataIn == m.dataIn+1:
		return m.answeredBy(s, known) // one segment, and then what was sent
	case known && s.segsIn-s.dataIn == m.pureIn, !known && s.segsIn-s.dataIn <= handshakeSegments:
		// All that was sent is acknowledged, and by no segment for this
		// alone: the next data has done it, which came after.
		return m.asked(s, known)
	}
	return unordered
}

// later judges a connection on which nothing came or went since the last look.
func (m *memory) later(s *socket) order {
	switch {
	case m.order != unordered:
		return m.order
	case s.ackFollows():
		return answered
	case s.segsOut-s.dataOut != m.pureOut && s.segsIn == m.segsIn && s.recvAge <= ackSoon:
		// The app's side has acknowledged data by a segment for this alone:
		// nothing was sent after that data came.
		return waiting
	}
	return unordered
}

// ackFollows tells whether the peer has acknowledged something in a later tick
// than that in which its last data came. Where it has closed its half, that may
// have done it, and tells nothing.
func (s *socket) ackFollows() bool {
	return s.ackAge < s.recvAge && s.recvAge-s.ackAge <= ackSoon && !s.peerClosed()
}

// asked judges a connection on which data was received last.
func (m *memory) asked(s *socket, known bool) order {
	if !known || m.order == waiting {
		return waiting
	}
	more := s.received() - m.idleRecv
	if more < requestMinimum || m.sent > 0 && s.peerClosed() && more <= farewellMaximum {
		return slight
	}
	return waiting
}

// answeredBy judges a connection on which data was sent last.
func (m *memory) answeredBy(s *socket, known bool) order {
	asked := s.received()-m.idleRecv >= requestMinimum // otherwise it is a ping
	if known && asked && s.sent-m.idleSent <= interimMaximum {
		return interim
	}
	return answered
}

// work tells whether the connection counts.
func (m *memory) work(s *socket, mode string, silence time.Duration) bool {
	switch {
	case s.unsentData():
		return true
	case s.appClosed() || s.received() == 0:
		return false // nobody is at work on it
	case s.unreadData() || m.order == waiting || mode == Open:
		return true
	case m.order.doubtful() || mode == Active:
		return s.silent() < silence
	}
	return false
}
