package tcp

import (
	"testing"
	"time"
)

// look is one check of a connection: what was received and sent up to then, in
// how many segments, and how long ago.
type look struct {
	recv, sent                   uint64
	dataIn, pureIn, pureOut      uint32
	recvAge, sentAge, ackAge     uint32
	state                        uint8 // 0: established
	unread, unsent               uint32
	want                         activity
	works, worksActive, doesOpen bool // with a silence of 1 s
}

func (l look) socket() *socket {
	s := &socket{
		info: true, state: established, unread: l.unread, unsent: l.unsent, recv: l.recv, sent: l.sent,
		recvAge: l.recvAge, sentAge: l.sentAge, ackAge: l.ackAge,
		dataIn: l.dataIn, segsIn: l.dataIn + l.pureIn, segsOut: l.pureOut,
	}
	if l.state != 0 {
		s.state = l.state
	}
	return s
}

// after returns the time between two checks in ms.
func (l look) after(before look) int64 {
	switch {
	case l.sent == before.sent && l.sentAge > before.sentAge:
		return int64(l.sentAge - before.sentAge)
	case l.recv == before.recv && l.recvAge > before.recvAge:
		return int64(l.recvAge - before.recvAge)
	}
	return 10_000
}

func TestJudge(t *testing.T) {
	const old = 5000 // longer than the silence
	for name, test := range map[string]struct {
		known bool // from the beginning of the connection
		looks []look
	}{
		"nothing was ever received": {false, []look{
			{sent: 90, pureIn: 2, sentAge: 10, recvAge: 10, want: answered},
		}},
		"a first request": {false, []look{
			{recv: 100, dataIn: 1, pureIn: 2, recvAge: 4, sentAge: 8, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 100, dataIn: 1, pureIn: 2, recvAge: old, sentAge: old + 4, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 200, dataIn: 1, pureIn: 2, recvAge: old, sentAge: 0, unsent: 200, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 200, dataIn: 1, pureIn: 3, recvAge: old, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 200, dataIn: 1, pureIn: 3, recvAge: old, sentAge: old, want: answered, doesOpen: true},
		}},
		"an old connection, received last": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, recvAge: 4, sentAge: 8, want: waiting, works: true, worksActive: true, doesOpen: true},
		}},
		"an old connection, one tick, and its client has acknowledged later": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, recvAge: 800, sentAge: 800, ackAge: 760, want: answered, works: true, worksActive: true, doesOpen: true},
		}},
		"an old connection, one tick, and its client has closed its half later": {false, []look{
			{recv: 9001, sent: 9000, dataIn: 90, pureIn: 50, recvAge: 800, sentAge: 800, ackAge: 760, state: closeWait, unread: 1, want: unordered, works: true, worksActive: true, doesOpen: true},
			{recv: 9001, sent: 9000, dataIn: 90, pureIn: 50, recvAge: old, sentAge: old, ackAge: old - 40, state: closeWait, unread: 1, want: unordered, doesOpen: true},
		}},
		"an old connection, one tick, and a keep-alive probe was answered": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, recvAge: 16000, sentAge: 16000, ackAge: 1000, want: unordered, doesOpen: true},
		}},
		"an old connection, one tick, and its client never acknowledged but by requests": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 2, recvAge: old, sentAge: old, ackAge: old, want: waiting, works: true, worksActive: true, doesOpen: true},
		}},
		"an old connection, one tick, and no sign": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, recvAge: 400, sentAge: 400, ackAge: 400, want: unordered, works: true, worksActive: true, doesOpen: true},
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, recvAge: old, sentAge: old, ackAge: old, want: unordered, doesOpen: true},
			{recv: 9000, sent: 9100, dataIn: 90, pureIn: 50, recvAge: old, sentAge: 8, ackAge: 8, want: answered, works: true, worksActive: true, doesOpen: true},
		}},
		"one tick, and the app's side acknowledges later": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, pureOut: 7, want: unordered, works: true, worksActive: true, doesOpen: true},
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, pureOut: 8, recvAge: 60, sentAge: 60, ackAge: 60, want: waiting, works: true, worksActive: true, doesOpen: true},
		}},
		"one tick, and a keep-alive probe is sent": {false, []look{
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, pureOut: 7, want: unordered, works: true, worksActive: true, doesOpen: true},
			{recv: 9000, sent: 9000, dataIn: 90, pureIn: 50, pureOut: 8, recvAge: 15000, sentAge: 15000, ackAge: 15000, want: unordered, doesOpen: true},
		}},
		"an answer, and the next request in its tick": {true, []look{
			{recv: 100, dataIn: 1, pureIn: 2, recvAge: 80, sentAge: 84, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 200, sent: 500, dataIn: 2, pureIn: 2, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 200, sent: 500, dataIn: 2, pureIn: 2, recvAge: old, sentAge: old, ackAge: old, want: waiting, works: true, worksActive: true, doesOpen: true},
		}},
		"the end of an upload, and the answer in its tick": {true, []look{
			{recv: 1000, dataIn: 1, pureIn: 2, recvAge: 8, sentAge: 80, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 2000, sent: 500, dataIn: 2, pureIn: 3, recvAge: 4, sentAge: 4, ackAge: 4, want: unordered, works: true, worksActive: true, doesOpen: true},
			{recv: 2000, sent: 500, dataIn: 2, pureIn: 3, recvAge: old, sentAge: old, ackAge: old, want: unordered, doesOpen: true},
		}},
		"a request and its answer in a tick": {true, []look{
			{recv: 100, sent: 500, dataIn: 1, pureIn: 3, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 200, sent: 1000, dataIn: 2, pureIn: 4, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 400, sent: 1500, dataIn: 4, pureIn: 5, want: unordered, works: true, worksActive: true, doesOpen: true},
			{recv: 400, sent: 1500, dataIn: 4, pureIn: 6, recvAge: 44, sentAge: 44, ackAge: 4, want: answered, worksActive: true, doesOpen: true},
		}},
		"an answer in pieces": {true, []look{
			{recv: 100, sent: 500, dataIn: 1, pureIn: 3, recvAge: 8, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 600, dataIn: 1, pureIn: 4, recvAge: 300, sentAge: 4, want: streaming, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 600, dataIn: 1, pureIn: 4, recvAge: 900, sentAge: 600, want: streaming, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 700, dataIn: 1, pureIn: 5, recvAge: 1500, sentAge: 4, want: streaming, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 700, dataIn: 1, pureIn: 5, recvAge: old, sentAge: 2000, want: streaming, doesOpen: true},
			{recv: 200, sent: 700, dataIn: 2, pureIn: 5, recvAge: 4, sentAge: 2010, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 200, sent: 800, dataIn: 2, pureIn: 5, recvAge: 90, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
		}},
		"a large answer": {true, []look{
			{recv: 100, sent: 50_000, dataIn: 1, pureIn: 3, recvAge: 8, sentAge: 4, unsent: 9000, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 90_000, dataIn: 1, pureIn: 9, recvAge: 80, sentAge: 4, unsent: 9000, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 100, sent: 99_000, dataIn: 1, pureIn: 9, recvAge: 90, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
		}},
		"100 Continue": {true, []look{
			{recv: 150, sent: 25, dataIn: 1, pureIn: 3, recvAge: 8, sentAge: 4, want: interim, works: true, worksActive: true, doesOpen: true},
			{recv: 150, sent: 25, dataIn: 1, pureIn: 3, recvAge: old, sentAge: old, want: interim, doesOpen: true},
			{recv: 155, sent: 25, dataIn: 2, pureIn: 3, recvAge: 4, sentAge: old, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 355, sent: 25, dataIn: 3, pureIn: 3, recvAge: 4, sentAge: old, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 355, sent: 325, dataIn: 3, pureIn: 3, recvAge: 8, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
		}},
		"a ping that is answered": {true, []look{
			{recv: 100, sent: 500, dataIn: 1, pureIn: 3, recvAge: 8, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 117, sent: 517, dataIn: 2, pureIn: 3, recvAge: 4, sentAge: 4, want: answered, doesOpen: true},
			{recv: 134, sent: 517, dataIn: 3, pureIn: 4, recvAge: 4, sentAge: old, want: slight, works: true, worksActive: true, doesOpen: true},
			{recv: 134, sent: 534, dataIn: 3, pureIn: 4, recvAge: 8, sentAge: 4, want: answered, doesOpen: true},
		}},
		"a small message of a WebSocket that is not answered": {true, []look{
			{recv: 100, sent: 500, dataIn: 1, pureIn: 3, recvAge: 8, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 113, sent: 500, dataIn: 2, pureIn: 3, recvAge: 4, sentAge: 80, want: slight, works: true, worksActive: true, doesOpen: true},
			{recv: 113, sent: 500, dataIn: 2, pureIn: 3, pureOut: 1, recvAge: 44, sentAge: 120, want: slight, works: true, worksActive: true, doesOpen: true},
			{recv: 113, sent: 500, dataIn: 2, pureIn: 3, pureOut: 1, recvAge: old, sentAge: old + 76, want: waiting, works: true, worksActive: true, doesOpen: true},
		}},
		"TLS's farewell": {true, []look{
			{recv: 900, sent: 500, dataIn: 3, pureIn: 3, recvAge: 8, sentAge: 4, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 932, sent: 500, dataIn: 4, pureIn: 3, recvAge: 4, sentAge: 80, state: closeWait, want: slight, works: true, worksActive: true, doesOpen: true},
			{recv: 932, sent: 500, dataIn: 4, pureIn: 3, recvAge: old, sentAge: old + 76, state: closeWait, want: slight, doesOpen: true},
		}},
		"a client that closes its half": {true, []look{
			{recv: 100, dataIn: 1, pureIn: 2, recvAge: 4, sentAge: 8, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 101, dataIn: 1, pureIn: 3, recvAge: old, sentAge: old, unread: 1, state: closeWait, want: waiting, works: true, worksActive: true, doesOpen: true},
			{recv: 101, sent: 300, dataIn: 1, pureIn: 3, recvAge: old, sentAge: 4, state: lastAck, unsent: 301, want: answered, works: true, worksActive: true, doesOpen: true},
			{recv: 101, sent: 300, dataIn: 1, pureIn: 4, recvAge: old, sentAge: 4, state: lastAck, unsent: 1, want: answered},
		}},
		"a client that says nothing and closes its half": {true, []look{
			{recv: 1, pureIn: 3, recvAge: 4, sentAge: 4, unread: 1, state: closeWait, want: answered},
		}},
		"an app that closes before the end of the request": {true, []look{
			{recv: 100, dataIn: 1, pureIn: 2, recvAge: 4, sentAge: 8, unread: 50, unsent: 1, state: finWait1, want: waiting},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m, known := fresh(), test.known
			v := view{now: 1_000_000, port: protocol{http: true, http1: true}, learned: new(learned), patience: patience{fixed: time.Second}}
			for i, l := range test.looks {
				s := l.socket()
				if i > 0 {
					v.now += l.after(test.looks[i-1])
				}
				m.next(s, known, &v)
				known = true
				if m.activity != l.want {
					t.Fatalf("look %d: activity %d, want %d", i, m.activity, l.want)
				}
				for mode, want := range map[string]bool{Requests: l.works, Active: l.worksActive, Open: l.doesOpen} {
					v.mode = mode
					if got := m.work(s, &v); got != want {
						t.Errorf("look %d: %s: work is %v, want %v", i, mode, got, want)
					}
				}
			}
		})
	}
}
