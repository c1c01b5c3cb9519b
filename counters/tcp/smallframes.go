package tcp

import "time"

// isForeign reports whether a segment has come or gone, after the first ones,
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

// frameKinds corrects the kinds of what came and went on a connection of
// HTTP/2, whose smallest requests are no larger than some frames that request
// nothing. A client sends such frames when it has received something. What it
// sends on its own initiative, if it is more than a ping, is a request.
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
			came = none // it acknowledges what was sent
		}
	case bytes <= v.port.sizes().small:
	case v.port.isSlight(bytes) && (after || !accord || went == large):
		came = small
	default:
		came = large
	}
	return came, went
}

// followed reports whether the last data that came followed something that was
// sent, and may be a reaction to it. The times show this, if they differ. If they
// do not, it is likely if several segments were sent, or if an answer was expected
// and both fall into the same tick.
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

// isPing reports whether what came and went are two frames, one of which
// answers the other: pings of WebSockets or HTTP/2, or heartbeats.
func (m *memory) isPing(s *socket, came, went kind, v *view) bool {
	in, out := s.received()-m.recv, s.sent-m.sent
	if m.before.pending == cameSmall && came == none && v.now-int64(s.sentAge)-m.recvAt <= pongSoon {
		in, came = m.before.bytes, small
	}
	if m.before.pending == wentSmall && m.before.activity != slight && went == none && v.now-int64(s.recvAge)-m.sentAt <= clientPongSoon {
		out, went = m.before.bytes, small
	}
	if apart := int64(s.sentAge) - int64(s.recvAge); m.before.pending == 0 && (apart > frameSoon || apart < -pongSoon) {
		return false // neither is an answer to the other
	}
	// A frame that a WebSocket's client sends is longer by its mask.
	const mask = 4
	n := uint64(max(s.dataIn-m.dataIn, 1))
	switch {
	case went == large, came == large && (!v.port.http1 || went == none || in != out+mask*n):
		return false
	case came == none:
		return !v.port.http && went == tiny && m.activity != waiting && m.before.pending != cameSmall // a heartbeat
	case went == none:
		return !v.port.http && came == tiny // a heartbeat too
	}
	m.masked = m.masked || in == out+mask*n
	return in == out || in == out+mask*n
}

// smallCame judges a connection that has received less than a request.
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

// smallWent judges a connection on which less than an answer was sent.
func (m *memory) smallWent(s *socket, v *view) activity {
	if v.port.http2 && v.port.isControl(s.sent-m.sent, s.dataOut-m.dataOut) {
		// The app has acknowledged something, opened its window, or sent a
		// ping.
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
		// TLS's close_notify: the app closes the connection, because it was
		// idle for too long. A WebSocket's ping has the same length.
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
		return interim // an answer on a WebSocket, or a ping during the work
	case waiting:
		if m.notHTTP2 {
			m.frames = true
			return interim // the same
		}
		if v.port.http1 {
			m.frames = m.frames || v.port.isFrame(s.sent-m.sent)
			return interim // the same, or a 1xx response
		}
	case unordered:
		if v.port.http1 && v.port.isFrame(s.sent-m.sent) {
			m.frames = true
			return interim // the same
		}
	case interim, handshake:
	}
	return m.completed(s, v)
}

// hold keeps the state from before a frame that may be a ping.
func (m *memory) hold(what uint8, bytes uint64) {
	m.before.activity, m.before.recvAt, m.before.sentAt = m.activity, m.recvAt, m.sentAt
	m.before.pending, m.before.bytes = what, bytes
}

// withoutPong corrects a small frame that the app has sent while an answer was
// expected. If no pong has come within clientPongSoon, the frame was not a
// ping, and it is taken for the answer.
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
