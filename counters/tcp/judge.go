package tcp

import "time"

// activity is what is known of the last thing that happened on a connection.
type activity uint8

const (
	answered  activity = iota // an answer was sent after all that was received, or nothing was ever received
	waiting                   // a request was received after all that was sent
	unordered                 // either of the two
	slight                    // too little was received since the last answer to be a request
	interim                   // too little was sent since the request to be its answer
	streaming                 // the answer comes in pieces, and may go on
	handshake                 // what was sent may still belong to TLS's handshake
)

// finding is what an activity says about work on a connection.
type finding uint8

const (
	idle     finding = iota // nobody is at work on it
	busy                    // somebody is
	unproven                // answered by all that is seen, but more may come
	doubtful                // nothing says whether somebody is at work on it
	begun                   // it was opened, and has most likely carried no request yet
)

const (
	// farewellMaximum is as much as a peer may say before it closes an idle
	// connection: TLS's close_notify, HTTP/2's GOAWAY.
	farewellMaximum = 64
	// ackSoon bounds, in ms, how much later than data its acknowledgement may
	// come: TCP waits for 200 ms at most, then it travels. What comes later
	// belongs to a keep-alive probe, of which none is sent in the first second.
	ackSoon = 500
	// handshakeSegments have come, without data, when a connection is made.
	handshakeSegments = 2
	// frameSoon bounds, in ms, how much later than what it was sent a client of
	// HTTP/2 acknowledges it, or opens its window.
	frameSoon = 250
	// pongSoon bounds, in ms, how long an app takes to answer a ping, and
	// clientPongSoon how long a client does, which may be far away.
	pongSoon       = 500
	clientPongSoon = 3000
	// sameAnswer bounds, in ms, the pause between two parts of an answer that
	// a server writes one after the other: its header and its body.
	sameAnswer = 100
	// afterHandshake, in ms: a server sends its session tickets as soon as it
	// has the client's Finished. What it sends so much later is an answer.
	afterHandshake = 1000
	// handshakeFlights bounds the segments of a TLS handshake in one direction,
	// session tickets included. Who has sent more has said something else.
	handshakeFlights = 7
	// tlsOpening is how many segments with data a client sends for a handshake
	// alone: its hello, and its Finished.
	tlsOpening = 2
	// finishedMaximum is as much as a client sends to end a handshake, without
	// a certificate of its own. Some, like Node, send their first request in
	// the same segment; with one it is longer.
	finishedMaximum = 96
	// paddedHello is the size of the hello of clients that pad it.
	paddedHello = 517
	// largeHello is the least size of a hello that the kernel tells as that of
	// the largest segment received; it takes smaller ones for no measure.
	largeHello = 537
	// settingsMaximum is as much as a server of HTTP/2 says of itself when a
	// connection begins: settings, acknowledgements, its window, a ping.
	settingsMaximum = 128
	// provenAnswers is how many answers a client must have followed with
	// another request before the next one is taken for complete, too.
	provenAnswers = 2
	// manyExchanges is how many segments with data must have gone in both
	// directions to be several requests with their answers, and requestSegment
	// how many bytes they have then, on average, at most.
	manyExchanges  = 4
	requestSegment = 1000
)

// memory is what is kept of a connection from one look to the next.
type memory struct {
	activity activity
	own      bool   // it is the sidecar's
	port     int    // the app's
	unsent   bool   // data was waiting for the peer
	pinged   bool   // frames that are no work have come or gone since
	frames   bool   // it carries small frames in both directions: on a port of HTTP/1, a WebSocket
	pauses   bool   // an answer on it has paused for long
	notHTTP2 bool   // it carries what HTTP/2 cannot, on a port that speaks that: a WebSocket
	merged   bool   // more than one segment came in the look that shows the last data
	left     bool   // the app has said that it closes the connection
	masked   bool   // those of the client are longer by a WebSocket's mask
	settled  bool   // its TLS handshake is over
	pieces   bool   // a second part of the answer was sent right after the first
	proven   uint8  // answers that were followed by another request
	exact    bool   // size is that of one answer
	finished bool   // the second segment of data has ended a TLS handshake, and held no request
	size     uint64 // bytes of the last answer, or of several
	look     uint32

	recv, sent      uint64 // bytes of data
	segsIn          uint32 // segments
	dataIn, dataOut uint32 // and those of them with data
	pureIn, pureOut uint32 // and those without

	idleRecv, idleSent uint64 // bytes when it was last answered
	asked              uint32 // segments with data that have come since
	bornAt             int64  // ms: when it was first seen; 0: it was there before
	outAt              int64  // ms: when anything was last sent, a ping too
	recvAt, sentAt     int64  // ms, by the view's clock: the last data that was more than a ping

	// What activity and times were before a small frame came or went, which is
	// a ping if it is answered by one.
	before struct {
		pending        uint8
		activity       activity
		recvAt, sentAt int64
		bytes          uint64
	}
}

// What a small frame that is not answered yet was, for memory.before.pending.
const (
	cameSmall = 1
	wentSmall = 2
)

// fresh is the past of a connection that has just been made.
func fresh() memory { return memory{pureIn: handshakeSegments} }

// view is how the connections on a port are judged at one look.
type view struct {
	now      int64 // ms, of a monotonic clock
	mode     string
	port     protocol
	asking   bool // what the port speaks
	learned  *learned
	patience patience
}

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

// next takes in one look at the connection. known reports whether m is its
// past; otherwise it was made before the first look. It reports whether
// something has arrived that is more than a ping.
func (m *memory) next(s *socket, known bool, v *view) (arrived bool) {
	if !known && s.dataIn <= 1 {
		// All data came in one segment: there is no past that matters.
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

// of returns the view of one connection on the port.
func (v *view) of(m *memory) *view {
	if !m.notHTTP2 {
		return v
	}
	other := *v
	other.port.http, other.port.http2 = false, false
	return &other
}

// isForeign reports whether one segment has come or gone, after the first ones,
// that is too short for any frame of HTTP/2.
func (m *memory) isForeign(s *socket, v *view) bool {
	if !v.port.http2 || m.recv == 0 || m.sent == 0 {
		return false
	}
	short := func(bytes uint64, segments uint32) bool {
		return segments == 1 && bytes > 0 && v.port.isTooShort(bytes)
	}
	return short(s.received()-m.recv, s.dataIn-m.dataIn) || short(s.sent-m.sent, s.dataOut-m.dataOut)
}

// judge returns the activity that a look at the connection shows, and whether
// something has arrived.
func (m *memory) judge(s *socket, known bool, v *view) (activity, bool) {
	if s.received() == 0 {
		return answered, false // nothing was asked
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
			m.activity = unordered // what came last may have been a pong
		}
		if m.activity == unordered && m.masked && s.dataIn == s.dataOut {
			m.activity = answered // a WebSocket, each of whose messages has its answer
		}
		return m.activity, false
	case came == small && went == small && v.port.http1 && m.activity != slight:
		// Frames of a WebSocket: neither is a request, nor an answer to one.
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

// opening judges a connection on which no more segments have come than a TLS
// handshake has, whoever has sent last: some servers send their tickets, or all
// that they have to, before the client ends the handshake.
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

// isFinished reports whether the second segment with data was the end of a TLS
// handshake and no more. A request in it would be larger.
func (m *memory) isFinished(s *socket) bool {
	switch {
	case s.dataIn != tlsOpening:
		return false
	case m.dataIn == 1:
		return s.received()-m.recv <= finishedMaximum
	case s.largest >= largeHello:
		return s.received()-uint64(s.largest) <= finishedMaximum
	}
	// That of TLS 1.2 with a session resumed, and of TLS 1.3 and 1.2 with the
	// ciphers of today.
	switch s.received() {
	case paddedHello + 51, paddedHello + 64, paddedHello + 80, paddedHello + 93:
		return true
	}
	return false
}

// hasManyExchanges reports whether a connection has carried so many segments
// in both directions that they were several requests and their answers. An
// upload has larger segments.
func hasManyExchanges(s *socket, v *view) bool {
	n := min(s.dataIn, s.dataOut)
	return n >= v.port.opening()+manyExchanges && s.received()/uint64(s.dataIn) <= requestSegment
}

// frameKinds corrects what came and went on a connection of HTTP/2, whose
// smallest requests are no larger than some frames that ask for nothing. A
// client sends such frames when it was sent something; what it sends of its own
// accord, and is more than a ping, is a request.
func (m *memory) frameKinds(s *socket, came, went kind, v *view) (in, out kind) {
	bytes, at, sentNow := s.received()-m.recv, v.now-int64(s.recvAge), v.now-int64(s.sentAge)
	accord := at-m.outAt > frameSoon
	after := went != none && m.followed(s, at, sentNow)
	if went == large && v.port.isControl(s.sent-m.sent, s.dataOut-m.dataOut) {
		went = small
	}
	switch {
	case m.recv == 0, came == none, came == tiny:
	case v.port.isReaction(bytes) && (after || !accord):
		if came = small; went != none {
			came = none // it acknowledges what went
		}
	case bytes <= v.port.sizes().small:
	case v.port.isSlight(bytes) && (after || !accord || went == large):
		came = small
	default:
		came = large
	}
	return came, went
}

// followed reports whether what came last followed something that was sent, so
// that it may be a reaction to it: by the time, or, where an answer was expected
// and it was sent in several segments, most likely.
func (m *memory) followed(s *socket, at, sentNow int64) bool {
	switch {
	case at-sentNow > frameSoon || sentNow-at > frameSoon:
		return false
	case at > sentNow:
		return true
	case s.dataIn-m.dataIn > 1:
		return false
	}
	return s.dataOut-m.dataOut > 1 || at == sentNow && m.activity != answered
}

// touch notes when data was last received and sent that is no ping.
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

// first judges a connection that was made before the first look, by all that
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

// isPing reports whether what came and went are frames of which one answers
// the other: pings of WebSockets, of HTTP/2, heartbeats.
func (m *memory) isPing(s *socket, came, went kind, v *view) bool {
	in, out := s.received()-m.recv, s.sent-m.sent
	if m.before.pending == cameSmall && came == none && v.now-int64(s.sentAge)-m.recvAt <= pongSoon {
		in, came = m.before.bytes, small
	}
	if m.before.pending == wentSmall && m.before.activity != slight && went == none && v.now-int64(s.recvAge)-m.sentAt <= clientPongSoon {
		out, went = m.before.bytes, small
	}
	if apart := int64(s.sentAge) - int64(s.recvAge); m.before.pending == 0 && (apart > frameSoon || apart < -pongSoon) {
		return false // one did not answer the other
	}
	// A WebSocket's frame is longer by its mask when its client sends it.
	const mask = 4
	n := uint64(max(s.dataIn-m.dataIn, 1))
	switch {
	case went == large, came == large && (!v.port.http1 || went == none || in != out+mask*n):
		return false
	case came == none:
		return !v.port.http && went == tiny && m.activity != waiting && m.before.pending != cameSmall // a heartbeat
	case went == none:
		return !v.port.http && came == tiny // likewise
	}
	m.masked = m.masked || in == out+mask*n
	return in == out || in == out+mask*n
}

// smallCame judges a connection on which less than a request was received.
func (m *memory) smallCame(s *socket, v *view) activity {
	if m.activity == waiting {
		return waiting
	}
	if v.port.http2 && v.port.isReaction(s.received()-m.recv) && v.now-int64(s.recvAge)-m.outAt <= frameSoon {
		m.pinged = true
		return m.activity // the client has acknowledged something, or opened its window
	}
	was := m.activity
	m.frames = m.frames || v.port.http1 && (was == answered || was == slight) && m.sent > 0
	m.hold(cameSmall, s.received()-m.recv)
	m.recvAt = v.now - int64(s.recvAge)
	if was == interim && v.port.http1 && !m.frames {
		return waiting // it is the rest of the request
	}
	return slight
}

// smallWent judges a connection on which less was sent than an answer has.
func (m *memory) smallWent(s *socket, v *view) activity {
	if v.port.http2 && v.port.isControl(s.sent-m.sent, s.dataOut-m.dataOut) {
		// The app has acknowledged something, opened its window, or pings.
		if m.before.pending == 0 {
			m.hold(wentSmall, s.sent-m.sent)
		}
		m.pinged = true
		return m.activity
	}
	was := m.activity
	m.hold(wentSmall, s.sent-m.sent)
	m.sentAt = v.now - int64(s.sentAge)
	if was != waiting && !m.frames && v.port.isFarewell(s.sent-m.sent) {
		// TLS's close_notify: the app closes the connection, which was idle for
		// too long. A WebSocket's ping is as long.
		m.pinged, m.left = true, true
		return was
	}
	switch was {
	case answered, streaming:
		return streaming
	case slight:
		if !v.port.http {
			m.touch(s, v, false, true)
			return answered
		}
		return interim // an answer of a WebSocket's, or a ping during the work
	case waiting:
		if m.notHTTP2 {
			m.frames = true
			return interim // likewise
		}
		if v.port.http1 {
			m.frames = m.frames || v.port.isFrame(s.sent-m.sent)
			return interim // likewise, or 1xx
		}
	case unordered:
		if v.port.http1 && v.port.isFrame(s.sent-m.sent) {
			m.frames = true
			return interim // likewise
		}
	case interim, handshake:
	}
	return m.completed(s, v)
}

// hold keeps what there was before a frame that may be a ping.
func (m *memory) hold(what uint8, bytes uint64) {
	m.before.activity, m.before.recvAt, m.before.sentAt = m.activity, m.recvAt, m.sentAt
	m.before.pending, m.before.bytes = what, bytes
}

// requested judges a connection on which enough for a request was received,
// and nothing that answers it was sent since.
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

// prove takes in that a client that was answered has asked again: it had all
// of the answer.
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

// sentMore judges a connection on which an answer was sent, or a part of one.
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
	return streaming // and nothing was asked for since
}

// afterBoth judges a connection on which data came and went since the last
// look.
//
// The kernel keeps the times of the last data in ticks of 1 to 10 ms. A request
// and its answer, or an answer and the next request, often fall into one; their
// order is then decided by what was received or sent in between, and by who has
// acknowledged what, if it can be decided at all.
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
		// Who asks again has received the answer before, and acknowledged it.
		// So what is not acknowledged yet, or was after the last data came,
		// has been sent after that.
		return m.completed(s, v)
	case m.activity == answered && one:
		return m.completed(s, v) // one segment, and then what was sent
	case s.segsIn-s.dataIn == m.pureIn:
		// All that was sent is acknowledged, and by no segment for this
		// alone: the next data has done it, which came after.
		m.prove(v)
		return m.last(came, one, v)
	}
	return m.uniform(s, v)
}

// last judges a connection on which data came last. On a port that speaks more
// than HTTP/1 that may be a frame that asks for nothing, which a client sends
// soon after it was sent something.
func (m *memory) last(came kind, one bool, v *view) activity {
	switch {
	case came != large:
		return slight
	case one || v.port.http1 || m.recvAt-m.sentAt > frameSoon:
		return waiting
	}
	return unordered
}

// uniform judges a connection whose order is not known. Where all requests
// were alike, all answers were, and there are as many of the one as of the
// other, each request has its answer.
func (m *memory) uniform(s *socket, v *view) activity {
	n := uint64(s.dataIn)
	if v.port.http1 && !v.port.tls && n >= 4 && s.dataIn == s.dataOut && s.received()%n == 0 && s.sent%n == 0 {
		m.proven = provenAnswers
		return answered
	}
	return unordered
}

// completed judges a connection on which an answer was sent last, by all that
// is seen.
func (m *memory) completed(s *socket, v *view) activity {
	asked := s.received()-m.idleRecv >= v.port.sizes().request // otherwise it is a ping
	m.size, m.exact = s.sent-m.idleSent, m.asked+s.dataIn-m.dataIn == 1
	switch took := int64(s.recvAge) - int64(s.sentAge); {
	case asked && s.sent-m.idleSent <= v.port.sizes().interim:
		return interim
	case m.activity == interim && v.port.http1 && !m.frames && s.dataOut == m.dataOut+1 && s.sent-m.sent <= v.port.sizes().interim:
		return interim // one more of them
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

// withoutPong takes a small frame that the app has sent while it was waited for
// an answer for that answer, if no pong has come for so long that it was no
// ping.
func (m *memory) withoutPong(s *socket, came kind, v *view) {
	until := v.now
	if came != none {
		until -= int64(s.recvAge)
	}
	if m.activity != interim || !m.frames || m.before.pending != wentSmall || until-m.sentAt <= clientPongSoon {
		return
	}
	if !m.own {
		v.learned.seen(1, time.Duration(m.sentAt-m.before.recvAt)*time.Millisecond, v.now)
	}
	m.activity, m.before.pending = answered, 0
}

// later judges a connection on which nothing came or went since the last look.
func (m *memory) later(s *socket, v *view) activity {
	if m.activity == slight && (v.port.http1 || !v.port.http) && m.before.pending == cameSmall && m.before.bytes > v.port.sizes().tiny && v.now-m.recvAt > pongSoon {
		m.before.pending = 0
		return waiting // a small message, and no ping: that would have been answered
	}
	switch {
	case m.activity != unordered || m.pinged:
		return m.activity
	case s.ackFollows():
		return answered
	case v.port.http1 && s.segsOut-s.dataOut != m.pureOut && s.segsIn == m.segsIn && s.recvAge <= ackSoon:
		// The app's side has acknowledged data by a segment for this alone:
		// nothing was sent after that data came.
		return waiting
	}
	return unordered
}

// ackFollows reports whether the peer has acknowledged something in a later
// tick than that in which its last data came. Where it has closed its half,
// that may have done it, and says nothing.
func (s *socket) ackFollows() bool {
	return s.ackAge < s.recvAge && s.recvAge-s.ackAge <= ackSoon && !s.peerClosed()
}

// finding says what the last look means.
func (m *memory) finding(s *socket, v *view) finding {
	switch {
	case s.unsentData():
		return busy
	case s.appClosed() || s.received() == 0:
		return idle // nobody is at work on it
	case s.unreadData() || v.mode == Open:
		return busy
	case s.sent == 0 && v.port.isOpening(s.received(), s.dataIn):
		return begun
	}
	if m.left {
		return idle // the app has nothing more to say
	}
	switch m.activity {
	case waiting:
		return busy
	case handshake:
		if s.dataIn < tlsOpening || m.finished {
			return begun
		}
		return doubtful
	case answered:
		if !m.frames && v.learned.isPart(m.size) {
			return doubtful
		}
		switch {
		case m.masked && v.patience.auto:
			return idle // a WebSocket
		case v.mode == Requests && v.port.http1 && (m.frames || m.proven >= provenAnswers && !m.pauses):
			return idle
		}
		return unproven
	case slight:
		if v.port.http2 {
			return unproven // mostly a frame that asks for nothing
		}
	case unordered, interim, streaming:
	}
	return doubtful
}

// work reports whether the connection counts.
func (m *memory) work(s *socket, v *view) bool {
	v = v.of(m)
	silent, unanswered := v.since(max(m.recvAt, m.sentAt)), v.since(m.recvAt)
	switch m.finding(s, v) {
	case busy:
		return true
	case begun:
		return v.patience.begun(silent)
	case unproven:
		return v.patience.unproven(silent, unanswered, m.proven > 0, v)
	case doubtful:
		return v.patience.doubtful(silent, unanswered, m.activity == streaming, v)
	case idle:
	}
	return false
}

func (v *view) since(at int64) time.Duration { return time.Duration(v.now-at) * time.Millisecond }
