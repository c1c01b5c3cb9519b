package tcp

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lastcall/internal/test/wait"
)

// wire is one connection with simulated checks and a simulated clock.
type wire struct {
	s                     socket
	m                     memory
	v                     view
	recvAt, sentAt, ackAt int64
	arrived               int // checks that showed an arrival
	looked                bool
}

func newWire(mode string, port protocol, patience patience) *wire {
	w := &wire{m: fresh(), v: view{now: 1_000_000, mode: mode, port: port, learned: new(learned), patience: patience}}
	w.s = socket{info: true, state: established, segsIn: handshakeSegments, segsOut: 1}
	w.recvAt, w.sentAt, w.ackAt = w.v.now, w.v.now, w.v.now
	return w
}

func (w *wire) pass(d time.Duration) { w.v.now += d.Milliseconds() }

// came adds a segment from the client. went adds a segment from the app, which
// the client acknowledges.
func (w *wire) came(bytes int) {
	w.s.recv += uint64(bytes)
	if bytes >= largeHello {
		w.s.largest = max(w.s.largest, uint32(bytes))
	}
	w.s.dataIn++
	w.s.segsIn++
	w.recvAt, w.ackAt = w.v.now, w.v.now
}

func (w *wire) went(bytes int) {
	w.s.sent += uint64(bytes)
	w.s.dataOut++
	w.s.segsOut++
	w.s.segsIn++
	w.sentAt, w.ackAt = w.v.now, w.v.now
}

// look judges the connection and reports whether it counts.
func (w *wire) look() bool {
	w.s.recvAge, w.s.sentAge, w.s.ackAge = uint32(w.v.now-w.recvAt), uint32(w.v.now-w.sentAt), uint32(w.v.now-w.ackAt)
	before := w.m
	if w.m.next(&w.s, true, &w.v) {
		w.arrived++
	}
	w.m.teach(&before, &w.s, w.looked, &w.v)
	w.looked = true
	return w.m.work(&w.s, &w.v)
}

// exchange adds a request and its answer, each followed by a check.
func (w *wire) exchange(took time.Duration) {
	w.came(200)
	w.look()
	w.pass(took)
	w.went(300)
	w.look()
	w.pass(300 * time.Millisecond)
	w.look()
}

var (
	http1Port = protocol{asked: true, http: true, http1: true}
	http2Port = protocol{asked: true, http: true, http2: true}
	otherPort = protocol{asked: true}
)

func byTLS(p protocol) protocol {
	p.tls = true
	return p
}

func TestPatience(t *testing.T) {
	const s = time.Second
	much := func(answer, pause time.Duration) *learned {
		return &learned{answers: enoughAnswers, firstAt: 0, answer: answer, pause: pause}
	}
	few := &learned{answers: enoughAnswers - 1, answer: s}
	now := enoughTime.Milliseconds()
	for _, test := range []struct {
		name     string
		patience patience
		learned  *learned
		now      int64
		mode     string
		proven   bool
		// The silence after which it no longer counts. 0: it never counts; -1:
		// it always counts.
		doubtful, streaming, unproven, begun time.Duration
	}{
		{"fixed", patience{fixed: 3 * s}, much(s, 0), now, Requests, true, 3 * s, 3 * s, 3 * s, 3 * s},
		{"none", patience{}, much(s, 0), now, Active, true, 0, 0, 0, 0},
		{"nothing was seen", patience{auto: true}, new(learned), now, Requests, false, -1, -1, -1, 5 * s},
		{"nothing was seen, proven", patience{auto: true}, new(learned), now, Requests, true, -1, -1, 5 * s, 5 * s},
		{"one answer too few", patience{auto: true}, few, now, Active, true, -1, -1, -1, 5 * s},
		{"a moment too early", patience{auto: true}, much(s, 0), now - 1, Active, true, -1, -1, -1, 5 * s},
		{"short answers", patience{auto: true}, much(s/10, 0), now, Requests, true, 5*s + s/10, 5 * s, 0, 5 * s},
		{"long answers", patience{auto: true}, much(20*s, 0), now, Requests, true, 25 * s, 40 * s, 0, 5 * s},
		{"short pauses", patience{auto: true}, much(s, pauseMatters-1), now, Requests, true, 6 * s, 5 * s, 0, 5 * s},
		{"long pauses", patience{auto: true}, much(s, 10*s), now, Requests, true, 6 * s, 20 * s, 20 * s, 5 * s},
		{"active, short answers", patience{auto: true}, much(s/10, 0), now, Active, true, 5*s + s/10, 5 * s, 5*s + s/10, 5 * s},
		{"active, long answers", patience{auto: true}, much(40*s, 0), now, Active, true, 50 * s, 80 * s, 50 * s, 5 * s},
		{"active, long pauses", patience{auto: true}, much(s, 10*s), now, Active, true, 6 * s, 20 * s, 20 * s, 5 * s},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := &view{now: test.now, mode: test.mode, learned: test.learned}
			for what, kind := range map[string]struct {
				want time.Duration
				does func(silent time.Duration) bool
			}{
				"doubtful":  {test.doubtful, func(d time.Duration) bool { return test.patience.doubtful(d, d, false, v) }},
				"streaming": {test.streaming, func(d time.Duration) bool { return test.patience.doubtful(d, d, true, v) }},
				"unproven":  {test.unproven, func(d time.Duration) bool { return test.patience.unproven(d, d, test.proven, v) }},
				"begun":     {test.begun, test.patience.begun},
			} {
				switch {
				case kind.want < 0:
					if !kind.does(1000 * time.Hour) {
						t.Errorf("%s: it does not count for ever", what)
					}
				case kind.does(kind.want):
					t.Errorf("%s: it counts after %v", what, kind.want)
				case kind.want > 0 && !kind.does(kind.want-time.Millisecond):
					t.Errorf("%s: it does not count just before %v", what, kind.want)
				}
			}
		})
	}
}

// On a port where another request may be under way, the age of the last request
// matters, and that of the last data.
func TestUnprovenByWhatWasAskedLast(t *testing.T) {
	v := &view{now: enoughTime.Milliseconds(), mode: Active, learned: &learned{answers: enoughAnswers, answer: 40 * time.Second}}
	p := patience{auto: true}
	for _, test := range []struct {
		silent, unanswered time.Duration
		want               bool
	}{
		{time.Second, time.Hour, true},
		{6 * time.Second, 49 * time.Second, true},
		{6 * time.Second, 50 * time.Second, false},
		{49 * time.Second, 49 * time.Second, true},
	} {
		if got := p.unproven(test.silent, test.unanswered, true, v); got != test.want {
			t.Errorf("silent for %v, asked %v ago: %v, want %v", test.silent, test.unanswered, got, test.want)
		}
	}
}

func TestTeach(t *testing.T) {
	auto := patience{auto: true}
	t.Run("the time of answers", func(t *testing.T) {
		w := newWire(Requests, http1Port, auto)
		for _, took := range []time.Duration{0, 100 * time.Millisecond, 3 * time.Second, 200 * time.Millisecond} {
			w.exchange(took)
		}
		if l := w.v.learned; l.answers != 4 || l.answer != 3*time.Second || l.pause != 0 {
			t.Errorf("learned %+v", *l)
		}
	})
	t.Run("a wait, also where no look has shown it begin", func(t *testing.T) {
		w := newWire(Requests, http1Port, auto)
		w.exchange(0)
		w.came(200)
		w.pass(7 * time.Second)
		w.went(300)
		w.look()
		if l := w.v.learned; l.answer != 7*time.Second {
			t.Errorf("learned %+v", *l)
		}
	})
	t.Run("pauses within an answer", func(t *testing.T) {
		w := newWire(Requests, http1Port, auto)
		w.exchange(0)
		w.came(200)
		w.look()
		w.pass(time.Second)
		for range 3 {
			w.went(300)
			w.look()
			w.pass(4 * time.Second)
			w.look()
		}
		if l := w.v.learned; l.pause != 4*time.Second || l.answer != time.Second {
			t.Errorf("learned %+v", *l)
		}
	})
	t.Run("no pings", func(t *testing.T) {
		w := newWire(Active, http2Port, auto)
		w.exchange(0)
		before := *w.v.learned
		for range 100 {
			w.pass(20 * time.Second)
			w.came(17)
			w.look()
			w.pass(10 * time.Millisecond)
			w.went(17)
			w.look()
			w.pass(20 * time.Second)
			w.came(17)
			w.went(17)
			w.look()
		}
		if *w.v.learned != before {
			t.Errorf("learned %+v of pings, before it was %+v", *w.v.learned, before)
		}
	})
	t.Run("no connection of the sidecar's own", func(t *testing.T) {
		w := newWire(Requests, http1Port, auto)
		w.m.own = true
		w.exchange(time.Second)
		if *w.v.learned != (learned{}) {
			t.Errorf("learned %+v", *w.v.learned)
		}
	})
	t.Run("enough of it lets a doubt end", func(t *testing.T) {
		w := newWire(Requests, http1Port, auto)
		for range enoughAnswers {
			w.exchange(2 * time.Second)
		}
		if !w.v.learned.enough(w.v.now) || w.v.learned.silence() != leastSilence {
			t.Errorf("learned %+v", *w.v.learned)
		}
		w.exchange(8 * time.Second)
		if w.v.learned.silence() != 16*time.Second {
			t.Errorf("learned %+v", *w.v.learned)
		}
	})
}

// pinging describes the pings on a connection that is otherwise idle.
type pinging struct {
	name    string
	port    protocol
	in, out int  // bytes of a frame and of its answer
	appAsks bool // the app sends the pings
}

func pingings() []pinging {
	var all []pinging
	add := func(p pinging) {
		all = append(all, p)
		for _, record := range []int{recordLeast, recordMost} {
			secure := p
			secure.name += fmt.Sprintf(", TLS records of %d", record)
			secure.port, secure.in, secure.out = byTLS(p.port), p.in+record, p.out+record
			all = append(all, secure)
		}
	}
	// A larger ping cannot be distinguished from a message. Pings that programs
	// send on their own have at most 8 bytes.
	for _, payload := range []int{0, 1, 2, 4, 8, 11, 15} {
		if payload <= 11 {
			add(pinging{fmt.Sprintf("WebSocket, the client's ping of %d", payload), http1Port, 6 + payload, 2 + payload, false})
		}
		add(pinging{fmt.Sprintf("WebSocket, the app's ping of %d", payload), http1Port, 6 + payload, 2 + payload, true})
	}
	add(pinging{"HTTP/2, the client's ping", http2Port, 17, 17, false})
	add(pinging{"HTTP/2, the app's ping", http2Port, 17, 17, true})
	add(pinging{"MQTT", otherPort, 2, 2, false})
	add(pinging{"AMQP, the client's first", otherPort, 8, 8, false})
	add(pinging{"AMQP, the app's first", otherPort, 8, 8, true})
	add(pinging{"STOMP", otherPort, 1, 1, false})
	return all
}

// lookings are the times at which checks happen.
var lookings = []struct {
	name            string
	between, behind int // checks between a frame and its answer, and after the answer
	pause           time.Duration
}{
	{"both in one look", 0, 1, 0},
	{"both in one look, a tick apart", 0, 1, 20 * time.Millisecond},
	{"each in its look", 1, 1, 40 * time.Millisecond},
	{"several looks between them", 5, 3, 200 * time.Millisecond},
}

func (p *pinging) once(w *wire, between, behind int, pause time.Duration) {
	first, second := func() { w.came(p.in) }, func() { w.went(p.out) }
	if p.appAsks {
		first, second = second, first
	}
	first()
	for range between {
		w.look()
		w.pass(pause / time.Duration(between))
	}
	if between == 0 {
		w.pass(pause)
	}
	second()
	for range behind {
		w.look()
		w.pass(10 * time.Millisecond)
	}
}

// begin opens the connection: with a handshake if it uses TLS, and then with a
// request and its answer.
func (p *pinging) begin(w *wire) {
	if p.port.tls {
		for _, n := range []int{517, 80} {
			w.came(n)
			w.look()
			w.went(500)
			w.look()
			w.pass(2 * time.Second)
		}
	}
	for range 8 {
		w.came(200)
		w.look()
		w.pass(50 * time.Millisecond)
		w.went(300)
		w.look()
		w.pass(50 * time.Millisecond)
		w.look()
	}
}

func TestPingsAreSilence(t *testing.T) {
	for _, p := range pingings() {
		for _, looking := range lookings {
			for _, mode := range []string{Requests, Active} {
				for name, patience := range map[string]patience{"auto": {auto: true}, "fixed": {fixed: leastSilence}} {
					t.Run(strings.Join([]string{p.name, looking.name, mode, name}, "/"), func(t *testing.T) {
						w := newWire(mode, p.port, patience)
						w.v.learned = &learned{answers: enoughAnswers, firstAt: w.v.now - enoughTime.Milliseconds(), answer: time.Second, smallest: 300}
						p.begin(w)
						before := w.arrived
						for range 300 {
							p.once(w, looking.between, looking.behind, looking.pause)
							w.pass(time.Second)
						}
						if w.arrived != before {
							t.Errorf("%d arrivals by pings", w.arrived-before)
						}
						if w.look() {
							t.Errorf("it counts, after 5 minutes with nothing but pings: %+v", w.m)
						}
						// They do not hide a request.
						w.came(200)
						if !w.look() || w.arrived != before+1 {
							t.Errorf("a request after pings does not count, or is no arrival: %+v", w.m)
						}
						w.pass(time.Hour)
						if !w.look() {
							t.Error("nor does it after an hour")
						}
					})
				}
			}
		}
	}
}

// A request that comes in the same check as a ping and the ping's answer.
func TestRequestsAmongPings(t *testing.T) {
	for _, p := range pingings() {
		for _, mode := range []string{Requests, Active} {
			t.Run(p.name+"/"+mode, func(t *testing.T) {
				w := newWire(mode, p.port, patience{fixed: time.Hour})
				p.begin(w)
				for range 10 {
					p.once(w, 0, 1, 0)
					w.pass(time.Second)
				}
				before := w.arrived
				w.came(p.in)
				w.went(p.out)
				w.came(600)
				if !w.look() || w.arrived != before+1 {
					t.Errorf("it does not count, or is no arrival: %+v", w.m)
				}
				for range 10 {
					w.pass(time.Second)
					p.once(w, 0, 1, 0)
					if !w.look() {
						t.Fatalf("it no longer counts: %+v", w.m)
					}
				}
			})
		}
	}
}

func TestKinds(t *testing.T) {
	for _, test := range []struct {
		bytes    uint64
		segments uint32
		port     protocol
		want     kind
	}{
		{0, 0, http1Port, none},
		{1, 1, http1Port, tiny}, {8, 1, http1Port, tiny}, {9, 1, http1Port, small}, {17, 1, http1Port, small}, {18, 1, http1Port, large},
		{16, 2, otherPort, tiny},     // two heartbeats of AMQP
		{80, 10, otherPort, tiny},    // ten
		{1000, 500, otherPort, tiny}, // 500 of MQTT
		{170, 10, http2Port, small},  // ten pings of HTTP/2
		{1700, 100, http2Port, small},
		{171, 10, http1Port, large},
		{39, 1, byTLS(http1Port), small}, {30, 1, byTLS(http1Port), tiny}, {46, 1, byTLS(http1Port), small}, {47, 1, byTLS(http1Port), large},
		{390, 10, byTLS(http2Port), small},
		{26, 1, http2Port, large}, {34, 1, http2Port, large}, {35, 1, http2Port, large}, // see frameKinds
		{26, 1, http1Port, large},
		{100_000, 70, http1Port, large},
		{18, 0, http1Port, large}, // the kernel has not counted the segment yet
	} {
		if got := test.port.kind(test.bytes, test.segments); got != test.want {
			t.Errorf("%d bytes in %d segments, %+v: %d, want %d", test.bytes, test.segments, test.port, got, test.want)
		}
	}
	// A request among pings counts as large, however many pings there are.
	for _, port := range []protocol{http1Port, http2Port, otherPort, byTLS(http1Port), byTLS(http2Port)} {
		for pings := range 100 {
			bytes := uint64(pings)*17 + 120
			if got := port.kind(bytes, uint32(pings+1)); got != large {
				t.Errorf("%d pings and a request, %+v: %d", pings, port, got)
			}
		}
	}
}

func TestControlFrames(t *testing.T) {
	for _, n := range []uint64{9, 13, 17, 18, 22, 26, 30, 34} {
		for record, port := range map[uint64]protocol{0: http2Port, recordLeast: byTLS(http2Port), recordMost: byTLS(http2Port)} {
			if !port.isControl(n+record, 1) {
				t.Errorf("%d in a record of %d more is no control frame", n, record)
			}
		}
		for _, record := range []uint64{recordLeast, recordMost} {
			if !byTLS(http2Port).isControl(n+2*record, 2) {
				t.Errorf("%d in two records of %d more is no control frame", n, record)
			}
		}
	}
	for _, n := range []uint64{0, 1, 8, 35, 40, 57, 100} { // the smallest answer of gRPC has 35
		if http2Port.isControl(n, 1) {
			t.Errorf("%d is a control frame", n)
		}
	}
	for _, n := range []uint64{0, 8, 22, 29, 100, 200} {
		if byTLS(http2Port).isControl(n, 1) {
			t.Errorf("%d by TLS is a control frame", n)
		}
	}
}

// The header of the PROXY protocol alone is not a request if it is not
// answered.
func TestProxyProtocol(t *testing.T) {
	for _, bytes := range []int{28, 52} {
		w := newWire(Active, otherPort, patience{auto: true})
		w.came(bytes)
		if !w.look() {
			t.Errorf("%d bytes do not count at first", bytes)
		}
		w.pass(leastSilence)
		if w.look() {
			t.Errorf("%d bytes count after %v", bytes, leastSilence)
		}
		w.came(100)
		w.look()
		w.pass(time.Hour)
		if !w.look() {
			t.Error("the request that follows does not count")
		}
	}
	for _, port := range []protocol{http1Port, http2Port} {
		w := newWire(Active, port, patience{auto: true})
		w.came(28)
		w.look()
		w.pass(time.Hour)
		if !w.look() {
			t.Errorf("on a port of HTTP, 28 bytes are a request that is not answered: %+v", port)
		}
	}
}

func TestPacerOfProbes(t *testing.T) {
	now := time.Now()
	p := pacer{tokens: probesAtOnce, at: now}
	take := func(after time.Duration, want bool) {
		t.Helper()
		now = now.Add(after)
		if got := p.take(now); got != want {
			t.Errorf("%v later: %v, want %v", after, got, want)
		}
	}
	take(0, true)
	take(0, true)
	take(0, false) // readiness and liveness, but not a third probe
	take(900*time.Millisecond, false)
	take(100*time.Millisecond, true)
	take(0, false)
	take(time.Hour, true) // no more than probesAtOnce come back
	take(0, true)
	take(0, false)
	for range 100 { // one a second, without limit
		take(time.Second, true)
	}
	now = now.Add(time.Hour)
	p.open = 1
	take(0, false) // only one at a time
	p.open = 0
	taken := 0
	for range 1000 { // a hundred a second
		now = now.Add(10 * time.Millisecond)
		if p.take(now) {
			taken++
		}
	}
	if taken > 10+probesAtOnce {
		t.Errorf("%d probes in 10 s are explained", taken)
	}
}

// reusable listens on a port on which others may listen too.
func reusable(t *testing.T, address string) net.Listener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); err != nil {
			return err
		}
		return failed
	}}
	l, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestWhoListens(t *testing.T) {
	first := reusable(t, "127.0.0.1:0")
	port := first.Addr().(*net.TCPAddr).Port
	c := newCounter(t, Config{Count: Auto, Silence: Silence{Auto: true}}, port)
	var diag diagnostics
	defer diag.close()
	who := func() *portListener {
		t.Helper()
		found, err := c.listeners(t.Context(), &diag)
		if err != nil || found[port] == nil {
			t.Fatalf("got %v, %v", found, err)
		}
		return found[port]
	}
	old := who()
	if !who().follows(old) {
		t.Error("the same listener is another one")
	}
	second := reusable(t, first.Addr().String())
	both := who()
	if !both.follows(old) {
		t.Error("a second listener has made the port another's")
	}
	first.Close()
	left := who()
	if !left.follows(both) {
		t.Error("a hand-over has made the port another's")
	}
	second.Close()
	third := reusable(t, first.Addr().String())
	if who().follows(left) {
		t.Error("a new listener is the old one")
	}
	third.Close()
	if found, err := c.listeners(t.Context(), &diag); err != nil || len(found) != 0 {
		t.Errorf("got %v, %v where nobody listens", found, err)
	}
}

func TestForget(t *testing.T) {
	c := newCounter(t, Config{Count: Auto, Silence: Silence{Auto: true}}, 1, 2)
	for _, port := range []int{1, 2} {
		c.speaks(port, protocol{asked: true, http: true, http1: true, found: "HTTP/1 only"})
		c.views[port].learned.seen(enoughAnswers, 3*time.Second, 0)
		c.views[port].now = enoughTime.Milliseconds()
	}
	c.publish()
	l := c.Learned()
	if l.Answers != 2*enoughAnswers || l.Longest != 3*time.Second || l.Silence != 6*time.Second || !strings.Contains(l.Text, "port 2 speaks HTTP/1 only; counts requests") {
		t.Errorf("got %+v", l)
	}
	c.forget(2)
	c.publish()
	l = c.Learned()
	if l.Answers != enoughAnswers || l.Silence != 0 || !strings.Contains(l.Text, "port 2 speaks nothing that is known yet; counts active") || !strings.Contains(l.Text, "port 1 speaks HTTP/1 only; counts requests") {
		t.Errorf("after port 2 was forgotten: %+v", l)
	}
}

// serveByHand is an app that refuses HTTP/2, and keeps the connections open on
// which it was asked what it speaks.
func serveByHand(ctx context.Context, l net.Listener, questions *atomic.Int32) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			b := make([]byte, 1000)
			for {
				n, err := conn.Read(b)
				if err != nil {
					<-ctx.Done() // until then it stays open
					return
				}
				if strings.HasPrefix(string(b[:n]), "PRI ") {
					questions.Add(1)
					io.WriteString(conn, "HTTP/1.1 505 Version Not Supported\r\nContent-Length: 0\r\n\r\n")
				} else {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nan answer, not short")
				}
			}
		}()
	}
}

func TestAPortIsAskedOncePerStart(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	var questions atomic.Int32
	go serveByHand(t.Context(), l.Listener, &questions)
	c := newCounter(t, Config{Count: Auto, Silence: Silence{Auto: true}}, l.port)
	ctx, cancel := context.WithCancel(t.Context())
	learning := make(chan struct{})
	go func() {
		defer close(learning)
		c.Learn(ctx)
	}()
	defer func() {
		cancel()
		<-learning
	}()
	looks := func() uint32 {
		c.lock()
		defer c.unlock()
		return c.tries
	}
	more := func() {
		t.Helper()
		before := looks()
		wait.Until(t, "more looks", func() bool {
			return looks() >= before+4
		})
	}
	more()
	if n := questions.Load(); n != 0 {
		t.Fatalf("asked %d times before a client has come", n)
	}
	visit := func() {
		t.Helper()
		x := l.connect(t)
		x.get(t, "/")
		x.answer(t, 200)
	}
	visit()
	wait.Until(t, "the answer to be known", func() bool { return strings.Contains(c.Learned().Text, "HTTP/1 only") })
	if text := c.Learned().Text; !strings.Contains(text, "counts requests") {
		t.Errorf("learned %q", text)
	}
	r, err := c.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		visit()
		more()
	}
	if n := questions.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	after, err := c.Count(t.Context())
	if err != nil || after.Arrived != r.Arrived+3 {
		t.Errorf("got %+v, %v after %+v, want three arrivals more: the question is none", after, err, r)
	}
	// The sidecar has closed the connection on which it asked, but the app has
	// not. The other open connections are the four clients.
	open := newCounter(t, Config{Count: Open}, l.port)
	wantCount(t, open, 5)
	open = newCounter(t, Config{Count: Open}, l.port)
	for _, end := range c.asked.ends {
		open.asked.add(end)
	}
	wantCount(t, open, 4)

	// The app starts again.
	address := l.Addr().String()
	l.Close()
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	go serveByHand(t.Context(), again, &questions)
	visit()
	wait.Until(t, "another question", func() bool { return questions.Load() == 2 })
}

// The handshakes of real clients: alone, or with the first request in the last
// segment of the handshake, as Node does.
func TestHandshakeOrRequest(t *testing.T) {
	for _, test := range []struct {
		name        string
		hello, ends int
		split       bool // there was a check between the two
		alone       bool // the second is known to be the end of the handshake alone
	}{
		{"curl, Python, TLS 1.3", 517, 80, false, true},
		{"the same with another cipher", 517, 64, false, true},
		{"curl, Python, TLS 1.2", 517, 93, false, true},
		{"openssl s_client", 315, 80, false, false},
		{"openssl s_client, and a look between", 315, 80, true, true},
		{"Go, Chrome: a large hello", 1700, 64, false, true},
		{"a large hello, and a request", 1700, 64 + 130, false, false},
		{"Node, with a request", 367, 167, false, false},
		{"Node, with a request, and a look between", 367, 167, true, false},
		{"Node, with a session resumed", 638, 162, false, false},
		{"Node's fetch", 382, 276, false, false},
		{"a hello that is padded, and a request", 517, 200, false, false},
	} {
		for _, ticketsFirst := range []bool{false, true} {
			for _, looks := range []string{"known before", "known later"} {
				t.Run(fmt.Sprintf("%s/tickets first %v/%s", test.name, ticketsFirst, looks), func(t *testing.T) {
					w := newWire(Requests, byTLS(http1Port), patience{auto: true})
					w.came(test.hello)
					w.went(1200)
					if test.split {
						w.look()
						w.pass(time.Millisecond)
					}
					if ticketsFirst {
						w.went(500)
					}
					w.came(test.ends)
					if !ticketsFirst {
						w.went(500)
					}
					if looks == "known later" {
						w.pass(40 * time.Millisecond)
					}
					if !w.look() {
						t.Fatal("it does not count at first")
					}
					w.pass(leastSilence)
					if got := w.look(); got == test.alone {
						t.Errorf("after %v it counts: %v", leastSilence, got)
					}
					w.pass(time.Hour)
					if got := w.look(); got == test.alone {
						t.Errorf("after an hour it counts: %v", got)
					}
					w.came(300)
					if !w.look() || w.m.activity != waiting {
						t.Errorf("a request that comes then does not count: %+v", w.m)
					}
				})
			}
		}
	}
}
