package tcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestLayoutIsTheKernels(t *testing.T) {
	var i unix.TCPInfo
	for name, offsets := range map[string][2]uintptr{
		"rcv_mss":        {infoRecvMSS, unsafe.Offsetof(i.Rcv_mss)},
		"last_data_sent": {infoLastSent, unsafe.Offsetof(i.Last_data_sent)},
		"last_data_recv": {infoLastRecv, unsafe.Offsetof(i.Last_data_recv)},
		"last_ack_recv":  {infoLastAck, unsafe.Offsetof(i.Last_ack_recv)},
		"bytes_received": {infoBytesRecv, unsafe.Offsetof(i.Bytes_received)},
		"segs_out":       {infoSegsOut, unsafe.Offsetof(i.Segs_out)},
		"segs_in":        {infoSegsIn, unsafe.Offsetof(i.Segs_in)},
		"data_segs_in":   {infoDataIn, unsafe.Offsetof(i.Data_segs_in)},
		"data_segs_out":  {infoDataOut, unsafe.Offsetof(i.Data_segs_out)},
		"bytes_sent":     {infoBytesSent, unsafe.Offsetof(i.Bytes_sent)},
		"the end":        {tcpInfoMinimum, unsafe.Offsetof(i.Bytes_sent) + unsafe.Sizeof(i.Bytes_sent)},
	} {
		if offsets[0] != offsets[1] {
			t.Errorf("%s is looked for at %d, and stands at %d", name, offsets[0], offsets[1])
		}
	}
}

// shown returns what the kernel sends about one socket.
func shown(family uint8, infoSize int) []byte {
	b := make([]byte, messageSize+4+infoSize)
	b[0], b[1] = family, established
	binary.NativeEndian.PutUint16(b[messageSize:], uint16(4+infoSize))
	binary.NativeEndian.PutUint16(b[messageSize+2:], attrInfo)
	return b
}

func TestGarbledAnswersAreErrors(t *testing.T) {
	good := shown(unix.AF_INET, 280)
	if err := new(socket).parse(good); err != nil {
		t.Fatal(err)
	}
	long := bytes.Clone(good)
	binary.NativeEndian.PutUint16(long[messageSize:], 1000)
	for name, test := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":           {nil, errGarbled},
		"short":           {good[:messageSize-1], errGarbled},
		"another family":  {shown(unix.AF_UNIX, 280), errGarbled},
		"half an info":    {good[:200], errGarbled},
		"a long info":     {long, errGarbled},
		"an older kernel": {shown(unix.AF_INET6, 192), errOldKernel},
	} {
		if err := new(socket).parse(test.b); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	if !refused(errOldKernel) || refused(errGarbled) || refused(context.DeadlineExceeded) || refused(unix.ENOBUFS) {
		t.Error("only what will never work is taken as refused")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(shown(unix.AF_INET, 280))
	f.Add(shown(unix.AF_INET6, 280))
	f.Add(shown(unix.AF_INET6, 192))
	f.Add(shown(unix.AF_INET, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s socket
		if s.parse(b) != nil {
			return
		}
		m := fresh()
		v := view{learned: new(learned)}
		work := func(mode string, silence time.Duration) bool {
			v.mode, v.patience.fixed = mode, silence
			return m.work(&s, &v)
		}
		for _, known := range []bool{false, true, true} {
			before := m
			m.next(&s, known, &v)
			m.teach(&before, &s, known, &v)
			if m.recv > s.recv || m.activity > handshake {
				t.Fatalf("%+v of %+v", m, s)
			}
		}
		if work(Requests, 0) && !work(Active, 0) || work(Active, time.Hour) && !work(Open, 0) {
			t.Fatalf("a mode that counts more counts less: %+v of %+v", m, s)
		}
	})
}

// framed returns b as a netlink message.
func framed(kind uint16, b []byte) []byte {
	d := new(diagnostics)
	framed := append(d.header(nil, kind, 0, len(b)), b...)
	return append(framed, make([]byte, aligned(len(framed))-len(framed))...)
}

func TestGarbledMessagesAreErrors(t *testing.T) {
	two := append(framed(getByFamily, make([]byte, 5)), framed(unix.NLMSG_ERROR, make([]byte, 4))...)
	var kinds []uint16
	if err := messages(two, func(m message) error {
		kinds = append(kinds, m.kind)
		return nil
	}); err != nil || !slices.Equal(kinds, []uint16{getByFamily, unix.NLMSG_ERROR}) {
		t.Fatalf("got %v, %v", kinds, err)
	}
	for end := 1; end < len(two); end++ {
		err := messages(two[:end], func(message) error { return nil })
		if whole := end >= 21 && end <= 24; whole != (err == nil) || err != nil && !errors.Is(err, errGarbled) {
			t.Errorf("the first %d bytes: %v", end, err)
		}
	}
	if err := (message{data: []byte{1}}).failure(); !errors.Is(err, errGarbled) {
		t.Errorf("got %v of an error of one byte", err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(framed(getByFamily, shown(unix.AF_INET, 280)))
	f.Add(append(framed(unix.NLMSG_ERROR, make([]byte, 20)), framed(unix.NLMSG_DONE, make([]byte, 4))...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = messages(b, func(m message) error {
			if err := m.failure(); err != nil {
				return err
			}
			return new(diagnostics).show(m.data, func(*socket) error { return nil })
		})
	})
}

// The kernel itself checks this filter, and the one for the ends of
// connections.
func TestManyPorts(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	io.WriteString(l.connect(t), request1)
	for n := range maxPorts {
		ports := make([]int, 0, maxPorts)
		for port := range n {
			ports = append(ports, port+1)
		}
		ports = append(ports, l.port)
		for port := n + 1; port < maxPorts; port++ {
			ports = append(ports, port+1)
		}
		becomes(t, newCounter(t, Config{}, ports...), 1, readable)
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if err := subscribe(conn, ports); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

func TestEndedContextEndsAReadingAndTheNextIsGood(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	io.WriteString(l.connect(t), request1)
	c := l.settled(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel() // at any moment
		if r, err := c.Count(ctx); err == nil && r.InFlight != 1 || err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("got %+v, %v", r, err)
		}
		wantCount(t, c, 1)
	}
}

// A check that was cut short has recorded the connections that it saw. The next
// check must not take them for reported twice.
func TestWhatACutShortLookHasSeenIsCountedByTheNext(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	io.WriteString(l.connect(t), request1)
	c := l.settled(t)
	wantCount(t, c, 1)
	c.tries++
	for _, m := range c.known {
		m.look = c.tries
	}
	wantCount(t, c, 1)
}

func TestNewNamesTheVariables(t *testing.T) {
	_, err := New(Config{Count: "all", Silence: Silence{Duration: -1}})
	for _, part := range []string{
		`LASTCALL_TCP_COUNT="all": must be auto, requests, active or open`, "LASTCALL_TCP_SILENCE=-1ns: must not be negative", "LASTCALL_APP_PORT must be set",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v lacks %q", err, part)
		}
	}
	for _, ports := range [][]int{{0}, {80, 65536}, {-1}, {80, 443, 80}, make([]int, maxPorts+1)} {
		if _, err := New(Config{Count: Requests}, ports...); err == nil || !strings.Contains(err.Error(), "LASTCALL_APP_PORT") {
			t.Errorf("%v: got %v", ports, err)
		}
	}
}
