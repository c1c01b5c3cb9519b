package tcp

import (
	"sync"
	"time"
)

const (
	// enoughAnswers and enoughTime are how much must have been seen of an app
	// before its longest answer says anything about the next one.
	enoughAnswers = 20
	enoughTime    = 30 * time.Second
	// leastSilence is the minimum time for which a connection in doubt must be
	// silent.
	leastSilence = 5 * time.Second
	// pauseMatters is the minimum pause within an answer that matters: if
	// answers have paused for so long, one that seems complete may continue.
	// Shorter pauses are covered by LASTCALL_QUIET.
	pauseMatters = 500 * time.Millisecond
)

// learned is what was seen of the answers on one port. The counter's busy
// guards it.
type learned struct {
	answers  uint64
	firstAt  int64 // ms, by the view's clock
	answer   time.Duration
	pause    time.Duration // within an answer
	smallest uint64        // bytes of the smallest complete answer; 0: none was measured
}

// seen records n answers. took is how long the last one took.
func (l *learned) seen(n uint64, took time.Duration, now int64) {
	if l.answers == 0 {
		l.firstAt = now
	}
	l.answers += n
	l.answer = max(l.answer, took)
}

func (l *learned) paused(pause time.Duration) { l.pause = max(l.pause, pause) }

// complete records the size of a complete answer.
func (l *learned) complete(size uint64) {
	if l.smallest == 0 || size < l.smallest {
		l.smallest = size
	}
}

// isPart reports whether an answer of this size is so much smaller than all
// complete answers that it may be only a header, or an early hint.
func (l *learned) isPart(size uint64) bool { return size > 0 && size < l.smallest*3/4 }

// enough reports whether enough was seen for the longest to be meaningful.
func (l *learned) enough(now int64) bool {
	return l.answers >= enoughAnswers && time.Duration(now-l.firstAt)*time.Millisecond >= enoughTime
}

// longestAnswer returns how long the next answer may take: a quarter longer
// than the longest so far, and at least 5 s longer.
func (l *learned) longestAnswer() time.Duration { return l.answer + max(leastSilence, l.answer/4) }

func (l *learned) longest() time.Duration { return max(l.answer, l.pause) }

// silence returns how long a connection in doubt must be silent.
func (l *learned) silence() time.Duration { return max(leastSilence, 2*l.longest()) }

// patience determines how long a doubt lasts.
type patience struct {
	auto  bool          // as long as learned
	fixed time.Duration // used if auto is false
}

// begun reports whether a connection counts that was opened and then silent.
func (p patience) begun(silent time.Duration) bool {
	if p.auto {
		return silent < leastSilence
	}
	return silent < p.fixed
}

// doubtful reports whether a connection counts if it is not known whether it is
// in use. A request that may be waiting on it came at the latest with the last
// data.
func (p patience) doubtful(silent, unanswered time.Duration, streaming bool, v *view) bool {
	switch {
	case !p.auto:
		return silent < p.fixed
	case !v.learned.enough(v.now):
		return true
	case streaming:
		return silent < v.learned.silence()
	}
	return silent < leastSilence || unanswered < v.learned.longestAnswer()
}

// unproven reports whether a connection counts that seems to be answered. On a
// port that speaks only HTTP/1, it is in use only if answers are known to
// pause. While too little was seen of them, proven reports whether the client
// has sent another request after an answer. On other ports, another request may
// be under way: it began before the last data came.
func (p patience) unproven(silent, unanswered time.Duration, proven bool, v *view) bool {
	l := v.learned
	switch {
	case !p.auto:
		return silent < p.fixed
	case v.mode == Requests && proven && !l.enough(v.now):
		return silent < leastSilence
	case !l.enough(v.now):
		return true
	case v.mode == Requests:
		return l.pause >= pauseMatters && silent < l.silence()
	}
	return silent < max(leastSilence, 2*l.pause) || unanswered < l.longestAnswer()
}

// teach records what the latest check, which was just judged, shows about the
// app's answers. before is the memory as it was before that check.
func (m *memory) teach(before *memory, s *socket, known bool, v *view) {
	if !known || m.own || s.appClosed() || m.sentAt == before.sentAt || s.dataOut == before.dataOut {
		return
	}
	came := m.recvAt != before.recvAt
	l := v.learned
	paused := time.Duration(m.sentAt-before.sentAt) * time.Millisecond
	switch {
	case before.before.pending == wentSmall && m.before.pending == wentSmall:
		m.paused(paused, l) // two in a row are not pings
	case m.before.pending != 0, m.activity == handshake, m.activity == interim:
	case before.activity != answered && before.activity != streaming && (!came || before.activity != unordered && before.activity != handshake):
		// The wait for an answer ends. The data that came since may have been
		// another request, or a frame that acknowledges the answer.
		l.seen(1, time.Duration(max(m.sentAt-before.recvAt, 0))*time.Millisecond, v.now)
	case !came && m.activity == streaming:
		m.paused(paused, l)
	case came:
		// If the order was not known before, the previous request most likely
		// had its answer. Otherwise a rest between two requests, which may be
		// long, would be taken for an answer.
		l.seen(v.port.exchanges(s.dataIn-before.dataIn, s.dataOut-before.dataOut), time.Duration(max(m.sentAt-m.recvAt, 0))*time.Millisecond, v.now)
	}
}

// exchanges returns how many requests with their answers these segments with
// data most likely were.
func (p protocol) exchanges(in, out uint32) uint64 {
	n := min(in, out)
	if !p.http1 {
		n /= segmentsOfCall
	}
	return uint64(max(n, 1))
}

// segmentsOfCall is how many segments a call of gRPC has in one direction: its
// header, its message, and a frame that acknowledges the answer.
const segmentsOfCall = 3

// paused records a pause within an answer.
func (m *memory) paused(pause time.Duration, l *learned) {
	l.paused(pause)
	m.pauses = m.pauses || pause >= pauseMatters
}

// teachEnd records a connection as it was when the kernel destroyed it. before
// is what was known about it; it is nil if the connection was made since the
// last check.
func teachEnd(before *memory, s *socket, v *view) {
	if s.sent == 0 || s.received() == 0 {
		return
	}
	asked := v.now - int64(s.recvAge)
	answer := v.now - int64(s.sentAge)
	switch {
	case before == nil && s.dataOut > v.port.opening() || before != nil && s.dataOut != before.dataOut:
	default:
		return // nothing was sent since
	}
	switch {
	case before == nil && s.dataOut > s.dataIn && (!v.port.tls || s.dataOut > s.dataIn+1):
		// Its header may have been sent at once, and the rest after a pause.
		if took := time.Duration(answer-asked) * time.Millisecond; took >= pauseMatters {
			v.learned.paused(took)
		}
	case before == nil:
	case before.activity != answered && before.activity != streaming:
		asked = before.recvAt
	case before.sent > 0 && s.received() <= before.recv+1: // the peer's end counts as a byte
		if v.port.isRest(s.sent - before.sent) {
			v.learned.paused(time.Duration(answer-before.sentAt) * time.Millisecond)
		}
		return
	}
	v.learned.seen(1, time.Duration(max(answer-asked, 0))*time.Millisecond, v.now)
}

// knowledge is what a counter has learned, for callers that ask during a check.
type knowledge struct {
	mu    sync.Mutex
	ports map[int]portKnowledge
}

// any reports whether anything was published.
func (k *knowledge) any() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ports != nil
}
