package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lastcall/counters/tcp"
	"lastcall/drain"
	"lastcall/internal/procnet"
	"lastcall/internal/test/manyconns"
	"lastcall/internal/test/sidecar"
)

// inNamespace is set if this process has its own network namespace.
const inNamespace = "BENCH_NAMESPACE"

const (
	ofTheApp = 50 // the app's connections in every measurement
	busyOnes = 5  // of these, the number that wait for an answer
	// readFor is how long each way of reading is measured.
	readFor = 2 * time.Second
	// lately is the minimum time for which the counter reads the kernel's table
	// after a new connection.
	lately = 50 * time.Millisecond
	// watchFor is how long a sidecar runs before its memory is measured.
	watchFor = 3 * time.Second
)

// BenchmarkReadings measures the cost of one reading of the app's connections, and
// the sidecar's memory, with many connections. It runs once, with its own
// repetitions. Like a pod, it has its own network namespace.
func BenchmarkReadings(b *testing.B) {
	if os.Getenv(inNamespace) == "" {
		enterNamespace(b)
		return
	}
	loopbackUp(b)
	var out strings.Builder
	out.WriteString("| connections in the pod | of them the app's | one reading | when one has just come | reading `/proc/net/tcp` | the sidecar's memory in a drain |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, all := range []int{100, 10_000, 100_000} {
		for _, ofApp := range []int{ofTheApp, all} {
			row := measureReadings(b, all, ofApp)
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %.1f MB |\n", thousands(all), thousands(ofApp), row.known, row.walk, row.proc, row.memory)
		}
	}
	text := out.String() + "\n" + provenance(b)
	fmt.Println("\n" + text)
	put(b, *write, "readings", text)
}

// enterNamespace runs only this benchmark in a new process with its own network
// namespace.
func enterNamespace(b *testing.B) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	args := []string{"-test.run=^$", "-test.bench=^BenchmarkReadings$", "-test.benchtime=1x", "-test.timeout=10m"}
	if *write != "" {
		args = append(args, "-write="+*write)
	}
	child := exec.CommandContext(b.Context(), self, args...)
	child.Env = append(os.Environ(), inNamespace+"=1")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := child.Run(); err != nil {
		b.Fatalf("measuring in a separate network namespace: %v", err)
	}
}

func loopbackUp(b *testing.B) {
	b.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		b.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		b.Fatalf("bringing the loopback up: %v", err)
	}
}

// cost is the cost of one reading.
type cost struct {
	took      float64 // microseconds, the median
	allocated float64 // bytes, the mean
}

func (c cost) String() string {
	size := fmt.Sprintf("%.0f B", c.allocated)
	if c.allocated >= 1e6 {
		size = fmt.Sprintf("%.1f MB", c.allocated/1e6)
	} else if c.allocated >= 1e3 {
		size = fmt.Sprintf("%.1f kB", c.allocated/1e3)
	}
	return fmt.Sprintf("%s µs, %s", thousands(int(c.took+0.5)), size)
}

// thousands formats a number with separators: 100,000.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{7: "7", 1000: "1,000", 100_000: "100,000", 1_002_003: "1,002,003"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	if got := (cost{1234.5, 59_040}).String(); got != "1,235 µs, 59.0 kB" {
		t.Error(got)
	}
}

// readings are the figures for one number of connections.
type readings struct {
	known, walk, proc cost
	memory            float64 // MB
}

func measureReadings(b *testing.B, all, ofApp int) (r readings) {
	b.Helper()
	app := listenAt(b)
	defer app.Close()
	defer app.clients(b)()
	if more := all - ofTheApp; more > 0 {
		at := app.port
		if ofApp == ofTheApp {
			foreign := listenAt(b) // holds the port of the other connections
			defer foreign.Close()
			at = foreign.port
		}
		connections, err := manyconns.Open(b.Context(), at, more)
		if err != nil {
			b.Fatal(err)
		}
		defer connections.Close()
	}

	counter, err := tcp.New(tcp.Config{Count: tcp.Requests, Silence: tcp.Silence{Duration: 5 * time.Second}}, app.port)
	if err != nil {
		b.Fatal(err)
	}
	count := func() {
		if reading, err := counter.Count(b.Context()); err != nil || reading.InFlight != busyOnes {
			b.Fatalf("counted %+v, %v", reading, err)
		}
	}
	r.known = costOf(b, func() {}, count)
	var last time.Time
	r.walk = costOf(b, func() {
		if time.Since(last) > lately {
			client, server := app.connect(b)
			client.Close()
			server.Close()
			last = time.Now()
		}
	}, count)
	r.proc = costOf(b, func() {}, func() {
		if got, err := procnet.Kernel().Unfinished(app.port); err != nil || len(got) < ofApp {
			b.Fatalf("%d connections, %v", len(got), err)
		}
	})
	r.memory = watching(b, app.port)
	return r
}

// costOf measures a reading repeatedly. The first few do not count.
func costOf(b *testing.B, before, read func()) cost {
	b.Helper()
	for range 3 {
		before()
		read()
	}
	var took []float64
	var allocated uint64
	var was, is runtime.MemStats
	for began := time.Now(); time.Since(began) < readFor || len(took) < 5; {
		before()
		runtime.ReadMemStats(&was)
		start := time.Now()
		read()
		took = append(took, float64(time.Since(start).Nanoseconds())/1000)
		runtime.ReadMemStats(&is)
		allocated += is.TotalAlloc - was.TotalAlloc
	}
	return cost{quantile(took, 0.5), float64(allocated) / float64(len(took))}
}

// watching returns the resident memory of a sidecar that waits for the end of the
// app's work.
func watching(b *testing.B, port int) float64 {
	b.Helper()
	s := sidecar.Start(b, &program, "LASTCALL_APP_PORT="+strconv.Itoa(port), "LASTCALL_COUNTERS=tcp", "LASTCALL_ENDPOINTS_WAIT=0s", "LASTCALL_GRACE_PERIOD=10m")
	defer s.Stop()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	s.PreStop(ctx)
	s.Await(b, "the app's work being counted", func(status drain.Status) bool {
		return status.Phase == drain.Draining && status.InFlight != nil && *status.InFlight == busyOnes
	})
	<-time.After(watchFor)
	return memory(b, s, "VmRSS")
}

// listener is an app's port.
type listener struct {
	net.Listener
	port int
}

func listenAt(b *testing.B) *listener {
	b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return &listener{l, l.Addr().(*net.TCPAddr).Port}
}

// clients opens the app's first connections. On some of them a request waits for
// its answer; the others are idle. Another process holds the clients' ends, because
// the counter attributes ends in its own process to the sidecar. The returned
// function closes all of them.
func (l *listener) clients(b *testing.B) (end func()) {
	b.Helper()
	var servers []net.Conn
	holder := exec.CommandContext(b.Context(), "cat")
	defer func() {
		for _, file := range holder.ExtraFiles {
			file.Close() // the holder has its own copy
		}
	}()
	for i := range ofTheApp {
		client, server := l.connect(b)
		pass(b, client, server, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if i >= busyOnes {
			pass(b, server, client, "HTTP/1.1 204 No Content\r\n\r\n")
		}
		file, err := client.File() // this is a copy
		client.Close()
		if err != nil {
			b.Fatal(err)
		}
		holder.ExtraFiles = append(holder.ExtraFiles, file)
		servers = append(servers, server)
	}
	stay, err := holder.StdinPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		stay.Close()
		if err := holder.Wait(); err != nil {
			b.Error(err)
		}
		for _, s := range servers {
			s.Close()
		}
	}
}

func (l *listener) connect(b *testing.B) (client *net.TCPConn, server net.Conn) {
	b.Helper()
	dialed, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	return dialed.(*net.TCPConn), server
}

func pass(b *testing.B, from, to net.Conn, text string) {
	b.Helper()
	_, err := io.WriteString(from, text)
	if err == nil {
		_, err = io.ReadFull(to, make([]byte, len(text)))
	}
	if err != nil {
		b.Fatal(err)
	}
}
