package tcp

// view holds what is needed to judge the connections on a port in one check.
type view struct {
	now      int64 // ms, by a monotonic clock
	mode     string
	port     protocol
	asking   bool // the port is being asked what it speaks
	learned  *learned
	patience patience
}

// next records one check of the connection. If known is true, m holds the
// connection's past; otherwise the connection was made before the first check.
// next reports whether more than a ping has arrived.
func (m *memory) next(s *socket, known bool, v *view) (arrived bool) {
	if !known && s.dataIn <= 1 {
		// All data came in one segment: no past is needed.
		own := m.own
		*m, known = fresh(), true
		m.own = own
	}
	m.notHTTP2 = m.notHTTP2 || known && m.isForeign(s, v)
	v = v.of(m)
	m.activity, arrived = m.judge(s, known, v)
	m.port = s.port
	if known && m.bornAt == 0 && m.segsIn == 0 {
		m.bornAt = v.now
	}
	if v.port.http1 && hasManyExchanges(s, v) {
		m.proven = provenAnswers
	}
	m.recv, m.sent, m.unsent = s.received(), s.sent, s.unsentData()
	m.asked += s.dataIn - m.dataIn
	m.segsIn, m.dataIn, m.dataOut = s.segsIn, s.dataIn, s.dataOut
	m.pureIn, m.pureOut = s.segsIn-s.dataIn, s.segsOut-s.dataOut
	if m.activity == answered || !known {
		m.idleRecv, m.idleSent, m.asked = m.recv, m.sent, 0
	}
	return arrived
}

// of returns the view for one connection on the port.
func (v *view) of(m *memory) *view {
	if !m.notHTTP2 {
		return v
	}
	other := *v
	other.port.http, other.port.http2 = false, false
	return &other
}

// judge returns the activity that a check shows, and whether something has
// arrived.
func (m *memory) judge(s *socket, known bool, v *view) (activity, bool) {
	if s.received() == 0 {
		return answered, false // nothing was requested
	}
	if v.port.tls && !m.settled && s.sent > 0 && s.dataIn <= tlsOpening {
		return m.opening(s, known, v)
	}
	if !known {
		return m.first(s, v), true
	}
	came := v.port.kind(s.received()-m.recv, s.dataIn-m.dataIn)
	went := v.port.kind(s.sent-m.sent, s.dataOut-m.dataOut)
	if v.port.http2 {
		came, went = m.frameKinds(s, came, went, v)
	}
	if went != none {
		m.outAt = v.now - int64(s.sentAge)
	}
	m.withoutPong(s, came, v)
	switch {
	case came == none && went == none:
		return m.later(s, v), false
	case m.isPing(s, came, went, v):
		m.pinged, m.left, m.frames = true, false, m.frames || came != none && went != none
		if m.before.pending != 0 {
			m.frames = true
			m.activity, m.recvAt, m.sentAt = m.before.activity, m.before.recvAt, m.before.sentAt
			m.before.pending = 0
		}
		if m.activity == waiting && m.merged && m.frames {
			m.activity = unordered // the last data may have been a pong
		}
		if m.activity == unordered && m.masked && s.dataIn == s.dataOut {
			m.activity = answered // a WebSocket whose messages are all answered
		}
		return m.activity, false
	case came == small && went == small && v.port.http1 && m.activity != slight:
		// Frames of a WebSocket: neither a request nor an answer to one.
		m.frames = true
		activity := m.activity
		m.touch(s, v, true, true)
		return activity, false
	case went == none && came != large:
		return m.smallCame(s, v), false
	case came == none && went != large:
		return m.smallWent(s, v), false
	case went == none, went != large && came == large && v.port.http:
		m.touch(s, v, true, false)
		return m.requested(s, v), true
	case came == none:
		previous := *m
		m.touch(s, v, false, true)
		return m.sentMore(&previous, s, v), false
	}
	m.touch(s, v, true, true)
	return m.afterBoth(s, came, v), true
}

// touch records when data other than pings was last received and sent.
func (m *memory) touch(s *socket, v *view, came, went bool) {
	if came {
		m.recvAt = v.now - int64(s.recvAge)
	}
	if went {
		m.sentAt = v.now - int64(s.sentAge)
	}
	m.before.pending, m.pinged, m.left = 0, false, false
	if came {
		m.merged = s.dataIn-m.dataIn > 1
	}
}

// first judges a connection that was made before the first check, by all that
// it has carried.
func (m *memory) first(s *socket, v *view) activity {
	m.touch(s, v, true, true)
	m.outAt = m.sentAt
	switch {
	case s.sent == 0:
		return waiting
	case s.recvAge < s.sentAge:
		return m.last(large, false, v)
	case s.recvAge > s.sentAge:
		return m.completed(s, v)
	case s.unsentData(), s.ackFollows():
		return m.completed(s, v)
	case s.segsIn-s.dataIn <= handshakeSegments && v.port.http1:
		return waiting
	}
	return m.uniform(s, v)
}

// requested judges a connection that has received enough data for a request,
// and on which nothing was sent since that could answer it.
func (m *memory) requested(s *socket, v *view) activity {
	more := s.received() - m.idleRecv
	switch {
	case m.sent > 0 && s.peerClosed() && more <= farewellMaximum:
		return slight
	case m.activity == handshake && v.now-m.sentAt >= afterHandshake:
		m.settled = true // the tickets were sent long before
	}
	if m.activity == answered && m.sent > 0 {
		m.prove(v)
	}
	return waiting
}

// prove records that a client has sent another request after an answer: it had
// received all of the answer.
func (m *memory) prove(v *view) {
	if v.port.tls && !m.settled {
		return // that was the handshake
	}
	if m.proven < provenAnswers {
		m.proven++
	}
	if m.exact {
		v.learned.complete(m.size)
	}
}

// sentMore judges a connection on which an answer, or a part of one, was sent.
func (m *memory) sentMore(before *memory, s *socket, v *view) activity {
	if before.activity != answered && before.activity != streaming {
		return m.completed(s, v)
	}
	pause := m.sentAt - before.sentAt
	switch {
	case before.unsent && before.activity == answered:
		return answered // the rest of a large answer
	case before.activity == answered && pause < sameAnswer && !before.pieces:
		m.pieces = true
		return answered // its body, after its header
	}
	return streaming // and no request came since
}

// afterBoth judges a connection on which data came and went since the last
// check.
//
// The kernel records the times of the last data in ticks of 1 to 10 ms. A
// request and its answer, or an answer and the next request, often fall into
// one tick. Their order is then found by what was received or sent in between,
// and by who has acknowledged what, if it can be found at all.
func (m *memory) afterBoth(s *socket, came kind, v *view) activity {
	m.pieces = false
	if m.activity == answered && m.sent > 0 {
		m.prove(v)
	}
	one := s.dataIn == m.dataIn+1 // all that came is one segment
	switch {
	case s.recvAge < s.sentAge:
		m.prove(v)
		return m.last(came, one, v)
	case s.recvAge > s.sentAge, s.unsentData(), s.ackFollows():
		// A client that sends another request has received and acknowledged the
		// answer before. So data that is not acknowledged yet, or was
		// acknowledged after the last data came, was sent after that data came.
		return m.completed(s, v)
	case m.activity == answered && one:
		return m.completed(s, v) // one segment came, and then data was sent
	case s.segsIn-s.dataIn == m.pureIn:
		// All that was sent is acknowledged, but not by a segment without data.
		// So the client's next data has acknowledged it, and came after it.
		m.prove(v)
		return m.last(came, one, v)
	}
	return m.uniform(s, v)
}

// last judges a connection on which data came last. On a port that speaks more
// than HTTP/1, that data may be a frame that requests nothing, which a client
// sends soon after it has received something.
func (m *memory) last(came kind, one bool, v *view) activity {
	switch {
	case came != large:
		return slight
	case one || v.port.http1 || m.recvAt-m.sentAt > frameSoon:
		return waiting
	}
	return unordered
}

// uniform judges a connection on which the order is not known. If all requests
// had the same size, all answers had the same size, and there are as many
// answers as requests, each request has its answer.
func (m *memory) uniform(s *socket, v *view) activity {
	n := uint64(s.dataIn)
	if v.port.http1 && !v.port.tls && n >= 4 && s.dataIn == s.dataOut && s.received()%n == 0 && s.sent%n == 0 {
		m.proven = provenAnswers
		return answered
	}
	return unordered
}

// completed judges a connection on which an answer was sent last, by all that
// is known.
func (m *memory) completed(s *socket, v *view) activity {
	asked := s.received()-m.idleRecv >= v.port.sizes().request // otherwise it was a ping
	m.size, m.exact = s.sent-m.idleSent, m.asked+s.dataIn-m.dataIn == 1
	switch took := int64(s.recvAge) - int64(s.sentAge); {
	case asked && s.sent-m.idleSent <= v.port.sizes().interim:
		return interim
	case m.activity == interim && v.port.http1 && !m.frames && s.dataOut == m.dataOut+1 && s.sent-m.sent <= v.port.sizes().interim:
		return interim // another interim answer
	case v.port.http2 && !v.port.tls && s.sent <= settingsMaximum:
		return interim // a server's settings
	case !v.port.tls || m.settled:
		return answered
	case took >= afterHandshake, min(s.dataIn, s.dataOut) >= handshakeFlights, m.bornAt > 0 && m.recvAt-m.bornAt >= afterHandshake:
		m.settled = true
		return answered
	}
	return handshake
}

// later judges a connection on which nothing came or went since the last check.
func (m *memory) later(s *socket, v *view) activity {
	if m.activity == slight && (v.port.http1 || !v.port.http) && m.before.pending == cameSmall && m.before.bytes > v.port.sizes().tiny && v.now-m.recvAt > pongSoon {
		m.before.pending = 0
		return waiting // a small message, not a ping: the app would have answered a ping
	}
	switch {
	case m.activity != unordered || m.pinged:
		return m.activity
	case s.ackFollows():
		return answered
	case v.port.http1 && s.segsOut-s.dataOut != m.pureOut && s.segsIn == m.segsIn && s.recvAge <= ackSoon:
		// The app's side has acknowledged data by a segment without data:
		// nothing was sent after that data came.
		return waiting
	}
	return unordered
}

// hasManyExchanges reports whether a connection has carried so many segments in
// both directions that they were several requests and their answers. The
// segments of an upload are larger.
func hasManyExchanges(s *socket, v *view) bool {
	n := min(s.dataIn, s.dataOut)
	return n >= v.port.opening()+manyExchanges && s.received()/uint64(s.dataIn) <= requestSegment
}
