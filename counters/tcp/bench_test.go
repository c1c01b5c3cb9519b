package tcp

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/manyconns"
	"lastcall/internal/test/wait"
)

// BenchmarkReading measures one reading of an app with 50 connections, 5 of
// them busy, in a pod with n more connections: foreign ones, or the app's.
func BenchmarkReading(b *testing.B) {
	l := listenOn(b, "127.0.0.1:0")
	port := l.port
	for i := range 50 {
		near, far := pair(b, l)
		io.WriteString(near, request1)
		if i >= 5 {
			io.ReadFull(far, make([]byte, len(request1)))
			io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
	measure := func(more int, whose string, morePort int) {
		if more > 0 {
			c, err := manyconns.Open(b.Context(), morePort, more)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
		}
		name := func(how string) string { return fmt.Sprintf("%d_%s/%s", more, whose, how) }
		b.Run(name("nothing_new"), func(b *testing.B) {
			c := newCounter(b, Config{}, port)
			oneByOne(b, c)
			measureCount(b, c, func() {})
		})
		b.Run(name("walk"), func(b *testing.B) {
			c := newCounter(b, Config{}, port)
			measureCount(b, c, func() { c.walk.before = time.Time{} })
		})
		b.Run(name("proc"), func(b *testing.B) {
			c := newCounter(b, Config{}, port)
			c.blind = true
			measureCount(b, c, func() {})
		})
		b.Run(name("listening"), func(b *testing.B) {
			a := NewApp(port)
			defer cpu(b)()
			for b.Loop() {
				if listening, err := a.Listening(b.Context()); err != nil || !listening {
					b.Fatal(listening, err)
				}
			}
		})
	}
	measure(0, "more", 0)
	for _, n := range []int{100, 10_000, 100_000} {
		foreign := freeport.Port(b)
		measure(n, "foreign", foreign)
		measure(n, "of_the_app", port)
	}
}

// BenchmarkLearning measures the cost of the checks while the pod serves: the
// processor time per second, with 1,000 idle connections of the app and 100,000
// foreign ones. It also measures the case in which connections are made to the
// pod again and again, so that the kernel's table must be walked.
func BenchmarkLearning(b *testing.B) {
	l := listenOn(b, "127.0.0.1:0")
	for range 1000 {
		near, far := pair(b, l)
		io.WriteString(near, request1)
		io.ReadFull(far, make([]byte, len(request1)))
		io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
	foreign := freeport.Port(b)
	many, err := manyconns.Open(b.Context(), foreign, 100_000)
	if err != nil {
		b.Fatal(err)
	}
	defer many.Close()
	for _, test := range []struct {
		name         string
		learn, moves bool
	}{{"without", false, false}, {"nothing_new", true, false}, {"new_connections", true, true}} {
		b.Run(test.name, func(b *testing.B) {
			c := newCounter(b, Config{Count: Auto, Silence: Silence{Auto: true}}, l.port)
			n := uint64(0)
			c.walk.accepted = func() (uint64, error) {
				if test.moves {
					n++
				}
				return n, nil
			}
			const span = 3 * time.Minute // the table is walked about every other minute
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			if test.learn {
				go c.Learn(ctx)
				wait.Until(b, "the first looks, which are made once", c.know.any)
			}
			runtime.GC()
			spent := processorTime(b)
			for b.Loop() {
				<-time.After(span)
			}
			b.ReportMetric(float64(processorTime(b)-spent)/float64(span)*100, "%-of-a-core")
		})
	}
}

// BenchmarkWatching measures the cost of a drain that waits for one request:
// the processor time per second.
func BenchmarkWatching(b *testing.B) {
	l := listenOn(b, "127.0.0.1:0")
	for range 50 {
		pair(b, l)
	}
	c := newCounter(b, Config{}, l.port)
	busy := map[string]func(){"idle": func() {}, "busy": func() {
		near, _ := pair(b, l)
		io.WriteString(near, request1)
	}}
	for _, name := range []string{"idle", "busy"} {
		b.Run(name, func(b *testing.B) {
			busy[name]()
			defer cpu(b)()
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Second)
				c.Changed(ctx)
				<-ctx.Done()
				cancel()
			}
		})
	}
}

func measureCount(b *testing.B, c *Counter, before func()) {
	b.Helper()
	defer cpu(b)()
	for b.Loop() {
		before()
		if r, err := c.Count(b.Context()); err != nil || r.InFlight < 5 {
			b.Fatal(r, err)
		}
	}
}

func pair(b *testing.B, l *listener) (near, far net.Conn) {
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

// cpu reports the processor time of what follows. On a machine with other work,
// this says more than the elapsed time.
func cpu(b *testing.B) (report func()) {
	b.Helper()
	b.ReportAllocs()
	before := processorTime(b)
	return func() { b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
