package tcp

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/procnet"
)

// BenchmarkReading measures one reading with 50 connections of the app, 5 of
// them busy, among sockets of others, against reading /proc/net/tcp.
func BenchmarkReading(b *testing.B) {
	app, foreign := listenHere(b), listenHere(b)
	for i := range 50 {
		near, far := pair(b, app)
		io.WriteString(near, request1)
		if i >= 5 {
			io.ReadFull(far, make([]byte, len(request1)))
			io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
	port := app.Addr().(*net.TCPAddr).Port
	sockets := 0
	for _, n := range []int{0, 100, 10_000} {
		for ; sockets < n; sockets += 2 { // a connection within the namespace has two ends
			pair(b, foreign)
		}
		b.Run(fmt.Sprintf("diagnostics/%d", n), func(b *testing.B) {
			c := newCounter(b, Config{}, port)
			defer cpu(b)()
			for b.Loop() {
				if _, err := c.Count(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("listening/%d", n), func(b *testing.B) {
			a := NewApp(port)
			defer cpu(b)()
			for b.Loop() {
				if listening, err := a.Listening(b.Context()); err != nil || !listening {
					b.Fatal(listening, err)
				}
			}
		})
		b.Run(fmt.Sprintf("proc/%d", n), func(b *testing.B) {
			defer cpu(b)()
			for b.Loop() {
				if _, err := procnet.Kernel().Unfinished(port); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func listenHere(b *testing.B) net.Listener {
	b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func pair(b *testing.B, l net.Listener) (near, far net.Conn) {
	b.Helper()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// cpu reports the processor's time of what follows: on a machine with other
// work, the clock's time says more about that.
func cpu(b *testing.B) (report func()) {
	b.Helper()
	b.ReportAllocs()
	spent := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	return func() { b.ReportMetric(float64((spent()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}
