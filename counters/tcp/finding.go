package tcp

import "time"

// finding returns what the last check means.
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
		return idle // the app sends nothing more
	}
	switch m.activity {
	case waiting:
		return busy
	case handshake:
		if s.dataIn < tlsOpening || m.finished && s.dataIn == tlsOpening {
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
