package tcp

import (
	"testing"
	"time"
)

// recordOf returns how many bytes TLS 1.3 adds to a record on a port; 0 without
// TLS.
func recordOf(p protocol) int {
	if p.tls {
		return recordLeast
	}
	return 0
}

// knows marks the connection's handshake as over. Enough was seen of the app,
// and its longest answer took answer.
func (w *wire) knows(answer time.Duration) {
	w.m.settled = true
	w.v.learned = &learned{answers: enoughAnswers, firstAt: w.v.now - enoughTime.Milliseconds(), answer: answer}
}

// merged puts n exchanges into one check, so that their order is not known.
func (w *wire) merged(n int) {
	for range n {
		w.came(80)
		w.went(90)
	}
	w.look()
}

// A client rests between two requests. Whatever the checks show about the order
// of the data, the rest is not taken for the time of an answer.
func TestRestIsNoAnswer(t *testing.T) {
	for _, port := range []protocol{http1Port, http2Port, otherPort, byTLS(http1Port), byTLS(http2Port), byTLS(otherPort)} {
		for _, rest := range []time.Duration{2 * time.Second, 10 * time.Second, time.Hour} {
			w := newWire(Active, port, patience{auto: true})
			w.merged(8)
			for range 20 {
				w.pass(rest)
				w.look()
				w.merged(1)
				w.pass(rest)
				w.merged(3)
			}
			if l := w.v.learned; l.answer > 100*time.Millisecond {
				t.Errorf("%+v: after rests of %v the longest answer is %v", port, rest, l.answer)
			}
		}
	}
}

// The time of an answer is learned if a check shows that the client waited for
// it, even if another request follows before the next check.
func TestAwaitedAnswerIsLearned(t *testing.T) {
	for _, port := range []protocol{http1Port, http2Port, otherPort} {
		for _, follows := range []bool{false, true} {
			w := newWire(Active, port, patience{auto: true})
			w.exchange(10 * time.Millisecond)
			w.came(200)
			w.look()
			w.pass(8 * time.Second)
			w.went(300)
			if follows {
				w.pass(20 * time.Millisecond)
				w.came(200)
			}
			w.look()
			if l := w.v.learned; l.answer < 8*time.Second || l.answer > 9*time.Second {
				t.Errorf("%+v, another request follows %t: the longest answer is %v, want 8s", port, follows, l.answer)
			}
		}
	}
}

// A client of gRPC acknowledges what it receives, at the moment in which it was
// sent or between two segments of it. The acknowledgement is not a request: how
// long the connection counts is measured from the request.
func TestReactionIsNoRequest(t *testing.T) {
	const request, reaction, answer = 54, 30, 59
	for _, port := range []protocol{http2Port, byTLS(http2Port)} {
		record := recordOf(port)
		for name, end := range map[string]func(w *wire){
			"after it": func(w *wire) {
				w.went(answer + record)
				w.pass(4 * time.Millisecond)
				w.came(reaction + record)
			},
			"in the same moment": func(w *wire) {
				w.went(answer + record)
				w.came(reaction + record)
			},
			"between two segments": func(w *wire) {
				w.went(answer + record)
				w.came(reaction + record)
				w.pass(4 * time.Millisecond)
				w.went(17 + record)
			},
		} {
			w := newWire(Active, port, patience{auto: true})
			w.m.settled = true
			w.came(500) // the beginning of the connection
			w.went(500)
			w.look()
			for range 2 * enoughAnswers {
				w.pass(enoughTime / enoughAnswers)
				w.came(request + record)
				w.look()
				w.pass(300 * time.Millisecond)
				w.went(answer + record)
				w.look()
			}
			w.v.learned.answer = 20 * time.Second
			w.pass(time.Second)
			w.came(request + record)
			w.look()
			w.pass(19 * time.Second)
			if !w.look() {
				t.Errorf("%s, TLS %t: a call of 19 s does not count", name, port.tls)
			}
			end(w)
			if !w.look() {
				t.Errorf("%s, TLS %t: it does not count when its answer has just been sent", name, port.tls)
			}
			w.pass(7 * time.Second) // 26 s after the request
			if w.look() {
				t.Errorf("%s, TLS %t: it counts 7 s after the answer, and 26 s after the request", name, port.tls)
			}
		}
	}
}

// TLS 1.3 adds 22 bytes to each record, so an answer can be as long as two
// frames in two records of TLS 1.2. In one segment there is only one record.
func TestAnswerAsLongAsTwoRecords(t *testing.T) {
	w := newWire(Active, byTLS(http2Port), patience{auto: true})
	w.m.settled = true
	w.exchange(time.Second)
	w.came(97)
	w.look()
	w.pass(time.Second)
	w.went(34 + 2*recordMost)
	w.look()
	if w.m.activity != answered {
		t.Errorf("after an answer of one segment the connection is %v, want answered", w.m.activity)
	}
}

// The first check of a WebSocket sees its opening, followed by the answer to a
// ping. That was not a request: the connection does not count forever.
func TestPongBehindAnOpening(t *testing.T) {
	for _, port := range []protocol{http1Port, byTLS(http1Port)} {
		record := recordOf(port)
		w := newWire(Requests, port, patience{auto: true})
		w.knows(time.Second)
		w.came(180 + record)
		w.went(135 + record)
		w.pass(time.Second)
		w.went(2 + record)
		w.pass(4 * time.Millisecond)
		w.came(6 + record)
		w.look()
		for range 5 {
			w.pass(5 * time.Second)
			w.went(2 + record)
			w.came(6 + record)
			w.look()
		}
		if w.look() {
			t.Errorf("TLS %t: it counts after 25 s of pings: %v", port.tls, w.m.activity)
		}
		// A message that is being processed counts during the pings.
		w.came(40 + record)
		w.look()
		w.pass(4 * time.Second)
		w.went(2 + record)
		w.came(6 + record)
		if !w.look() {
			t.Errorf("TLS %t: a message in work does not count after a ping", port.tls)
		}
	}
}

// With TLS 1.3, the ping of a WebSocket's server is as long as the alert that
// ends a connection. Its pong shows which of them it was. The pong is not a
// message.
func TestPingAsLongAsAFarewell(t *testing.T) {
	w := newWire(Requests, byTLS(http1Port), patience{auto: true})
	w.knows(time.Second)
	w.came(180)
	w.look()
	w.went(135)
	w.look()
	w.pass(10 * time.Second)
	for range 10 {
		w.went(2 + recordLeast)
		w.look()
		w.pass(12 * time.Millisecond)
		w.came(6 + recordLeast)
		w.look()
		w.pass(time.Second)
		if w.look() {
			t.Fatalf("an idle WebSocket counts a second after a ping: %v", w.m.activity)
		}
		w.pass(4 * time.Second)
	}
	w.came(100)
	if !w.look() {
		t.Error("a message does not count")
	}
	w.pass(9 * time.Second)
	if !w.look() {
		t.Error("a message in work does not count after 9 s")
	}
}

// An answer on a WebSocket is too short for any HTTP answer. It may be a ping
// until the time for a pong has passed.
func TestShortAnswerOfAWebSocket(t *testing.T) {
	w := newWire(Requests, http1Port, patience{auto: true})
	w.knows(time.Second)
	w.came(180)
	w.went(135)
	w.came(40) // the first message, after the opening
	w.look()
	w.pass(500 * time.Millisecond)
	w.went(6)
	if !w.look() {
		t.Error("it does not count while the frame may have been a ping")
	}
	w.pass(5 * time.Second) // no check meanwhile
	w.went(2)
	w.came(6)
	w.look()
	w.pass(6 * time.Second)
	if w.look() {
		t.Errorf("it counts 11 s after its answer: %v", w.m.activity)
	}
}

// closes ends the connection. Only what the kernel reports about its end is
// seen.
func (w *wire) closes() {
	w.s.recvAge, w.s.sentAge, w.s.ackAge = uint32(w.v.now-w.recvAt), uint32(w.v.now-w.sentAt), uint32(w.v.now-w.ackAt)
	teachEnd(&w.m, &w.s, &w.v)
}

// An answer pauses, and the connection ends with it: the pause is learned from
// the end. What a server sends when it closes an idle connection is not an
// answer.
func TestPauseBeforeTheEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		port protocol
		last int // bytes
		want time.Duration
	}{
		{"a body after its header", http1Port, 5, 8 * time.Second},
		{"a body after its header", byTLS(http1Port), 5 + recordLeast, 8 * time.Second},
		{"a body after its header", byTLS(http1Port), 5 + 2*recordLeast + 2, 8 * time.Second},
		{"data after a header", http2Port, 200, 8 * time.Second},
		{"data after a header", byTLS(http2Port), 200, 8 * time.Second},
		{"close_notify", byTLS(http1Port), 2 + recordLeast, 0},
		{"close_notify", byTLS(http1Port), 2 + recordMost, 0},
		{"GOAWAY", http2Port, 17, 0},
		{"GOAWAY with a reason", http2Port, 17 + 7, 0},
		{"GOAWAY and close_notify", byTLS(http2Port), 17 + 2 + 2*recordLeast, 0},
	} {
		w := newWire(Active, test.port, patience{auto: true})
		w.m.settled = true
		w.exchange(time.Second)
		w.came(200)
		w.look()
		w.went(120)
		w.look()
		w.pass(8 * time.Second)
		w.went(test.last)
		w.s.recv++ // the client closes its half
		w.closes()
		if got := w.v.learned.pause; got != test.want {
			t.Errorf("%s, %+v: a pause of %v was learned, want %v", test.name, test.port, got, test.want)
		}
	}
}

// Several interim answers in a row are not the answer.
func TestSeveralInterimAnswers(t *testing.T) {
	for _, port := range []protocol{http1Port, byTLS(http1Port)} {
		record := recordOf(port)
		w := newWire(Requests, port, patience{auto: true})
		w.m.proven = provenAnswers
		w.knows(20 * time.Second)
		w.exchange(time.Second)
		w.came(200)
		w.look()
		for range 5 {
			w.pass(3 * time.Second)
			w.went(27 + record)
			if !w.look() {
				t.Fatalf("TLS %t: it does not count %v after the request", port.tls, time.Duration(w.v.now-w.recvAt)*time.Millisecond)
			}
		}
		w.went(200)
		if w.look() {
			t.Errorf("TLS %t: it counts after its answer: %v", port.tls, w.m.activity)
		}
	}
}

// A WebSocket on a port that also speaks HTTP/2: its short frames are not
// HTTP/2 frames. A message is work until it is answered.
func TestWebSocketOnAPortOfHTTP2(t *testing.T) {
	for _, port := range []protocol{http2Port, byTLS(http2Port)} {
		record := recordOf(port)
		w := newWire(Active, port, patience{auto: true})
		w.knows(time.Second)
		w.came(180 + record)
		w.look()
		w.went(135 + record)
		w.look()
		for range 3 { // messages of two bytes, and of four
			w.pass(time.Second)
			w.came(8 + record)
			w.look()
			w.pass(50 * time.Millisecond)
			w.went(6 + record)
			w.look()
		}
		w.pass(time.Second)
		w.came(11 + record)
		for range 19 {
			if !w.look() {
				t.Fatalf("TLS %t: a message does not count after %v", port.tls, time.Duration(w.v.now-w.recvAt)*time.Millisecond)
			}
			w.pass(time.Second)
		}
		w.went(6 + record)
		w.look()
		w.pass(7 * time.Second)
		if w.look() {
			t.Errorf("TLS %t: it counts 7 s after its answer: %v", port.tls, w.m.activity)
		}
	}
}

// A message of a stream comes after a pause, and the client of gRPC
// acknowledges it at the same moment: the pause is learned.
func TestPauseOfAStream(t *testing.T) {
	for _, port := range []protocol{http2Port, byTLS(http2Port)} {
		record := recordOf(port)
		w := newWire(Active, port, patience{auto: true})
		w.m.settled = true
		w.exchange(time.Second)
		w.came(97)
		w.look()
		w.went(128)
		w.look()
		w.pass(10 * time.Second)
		w.went(20 + record)
		w.went(17 + record)
		w.came(30 + record)
		if !w.look() {
			t.Errorf("TLS %t: it does not count after a part of its answer", port.tls)
		}
		if l := w.v.learned; l.pause < 9*time.Second {
			t.Errorf("TLS %t: a pause of %v was learned, want 10s", port.tls, l.pause)
		}
	}
}

// If no check has seen a connection, the kernel reports only its end. An answer
// in several segments may have been a header, and the rest after a pause.
func TestPauseOfAnAnswerThatNobodySaw(t *testing.T) {
	for _, test := range []struct {
		name     string
		port     protocol
		in, out  int // segments
		took     time.Duration
		want     time.Duration
		answered time.Duration
	}{
		{"one segment", http1Port, 1, 1, 8 * time.Second, 0, 8 * time.Second},
		{"two segments", http1Port, 1, 2, 8 * time.Second, 8 * time.Second, 8 * time.Second},
		{"two segments, soon", http1Port, 1, 2, 100 * time.Millisecond, 0, 100 * time.Millisecond},
		{"TLS, perhaps its handshake alone", byTLS(http1Port), 2, 3, 8 * time.Second, 0, 0},
		{"TLS, its handshake and two segments", byTLS(http1Port), 2, 4, 8 * time.Second, 8 * time.Second, 8 * time.Second},
	} {
		w := newWire(Active, test.port, patience{auto: true})
		for range test.in {
			w.came(100)
		}
		w.pass(test.took)
		for range test.out {
			w.went(100)
		}
		w.s.recvAge, w.s.sentAge = uint32(w.v.now-w.recvAt), uint32(w.v.now-w.sentAt)
		teachEnd(nil, &w.s, &w.v)
		if l := w.v.learned; l.pause != test.want || l.answer != test.answered {
			t.Errorf("%s: a pause of %v and an answer of %v were learned, want %v and %v", test.name, l.pause, l.answer, test.want, test.answered)
		}
	}
}

// A check shows a handshake whose end contained no request. A request follows,
// and the server sends the session tickets only after it: they do not make it a
// handshake again.
func TestTicketsBehindTheFirstRequest(t *testing.T) {
	w := newWire(Requests, byTLS(http1Port), patience{auto: true})
	w.came(300) // ClientHello
	w.look()
	w.went(1200)
	w.look()
	w.came(80) // Finished
	w.look()
	if w.m.finding(&w.s, &w.v) != begun {
		t.Fatalf("after the handshake it is found to be %v", w.m.finding(&w.s, &w.v))
	}
	w.pass(20 * time.Millisecond)
	w.came(120) // the request
	w.pass(4 * time.Millisecond)
	w.went(250) // tickets
	for range 20 {
		if !w.look() {
			t.Fatalf("a request does not count after %v: %v", time.Duration(w.v.now-w.recvAt)*time.Millisecond, w.m.activity)
		}
		w.pass(3 * time.Second)
	}
}
