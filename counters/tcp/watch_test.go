package tcp

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"lastcall/internal/procnet"
	"lastcall/internal/test/wait"
)

// told waits until a change is reported.
func told(t *testing.T, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(wait.Patience):
		t.Fatal("no change was told")
	}
}

func TestConnectionsBetweenTwoLooksAreArrivals(t *testing.T) {
	a := startGo(t)
	c := a.settled(t)
	wantCount(t, c, 0)
	look := make(chan struct{}, 1)
	if err := c.watchEnds(t.Context(), look); err != nil {
		t.Fatal(err)
	}
	foreign := listenOn(t, "127.0.0.1:0")
	foreign.connect(t).Close()
	foreign.accept(t).Close()

	kept := a.connect(t)
	kept.get(t, "/")
	kept.answer(t, http.StatusOK)
	becomes(t, c, 0, readable)
	r, err := c.Count(t.Context())
	if err != nil || r.Arrived != 1 {
		t.Fatalf("got %+v, %v, want 1 arrival", r, err)
	}
	for range 3 { // one report for each
		x := a.connect(t)
		x.say(t, "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nConnection: close\r\n\r\n")
		x.answer(t, http.StatusOK)
		x.Close()
		told(t, look)
	}
	kept.Close() // nothing new came on it
	told(t, look)
	wait.Until(t, "4 arrivals", func() bool {
		r, err := c.Count(t.Context())
		if err != nil || r.Arrived > 4 {
			t.Fatalf("got %+v, %v, want 4 arrivals", r, err)
		}
		return r.Arrived == 4
	})
}

// While the pod serves, ends of connections are sampled to learn from them.
// This continues in a drain, in which all ends are watched. Each end counts
// once.
func TestAnEndCountsOnce(t *testing.T) {
	a := startGo(t)
	c := a.settled(t)
	wantCount(t, c, 0)
	once := func() {
		x := a.connect(t)
		x.say(t, "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nConnection: close\r\n\r\n")
		x.answer(t, http.StatusOK)
		x.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sampled := make(chan error, 1)
	go func() { sampled <- c.receiveEnds(ctx, 1000) }()
	seen := func() uint64 {
		c.lock()
		defer c.unlock()
		return c.arrived
	}
	wait.Until(t, "an end that was sampled", func() bool { once(); return seen() > 0 })
	becomes(t, c, 0, readable)

	look := make(chan struct{}, 1)
	if err := c.watchEnds(t.Context(), look); err != nil {
		t.Fatal(err)
	}
	before := becomes(t, c, 0, readable).Arrived
	for range 5 {
		once()
		told(t, look)
	}
	wait.Until(t, "5 arrivals", func() bool { return becomes(t, c, 0, readable).Arrived >= before+5 })
	cancel()
	if err := <-sampled; err != nil {
		t.Fatal(err)
	}
	if got := becomes(t, c, 0, readable).Arrived - before; got >= 10 { // an end or two from before may have been late
		t.Errorf("5 connections that came and went are %d arrivals: each counts twice", got)
	}
}

func TestChangedWhereNetlinkIsRefused(t *testing.T) {
	a := startGo(t)
	c := a.settled(t)
	c.blind = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := c.Changed(ctx)
	told(t, changed) // the first reading
	x := a.connect(t)
	told(t, changed)
	becomes(t, c, 1, readable)
	x.Close()
	for {
		told(t, changed)
		if r, err := c.Count(t.Context()); err != nil || r.HasArrived {
			t.Fatalf("got %+v, %v", r, err)
		} else if r.InFlight == 0 {
			break
		}
	}
	c.lock()
	c.table = procnet.Table{t.TempDir()}
	c.unlock()
	told(t, changed) // it cannot be read
	c.lock()
	c.table = procnet.Kernel()
	c.unlock()
	told(t, changed) // it can again
}

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	var p pace
	now := time.Now()
	for i, look := range []struct {
		took, want  time.Duration
		news, busy  bool
		earliestMin time.Duration // after the check
	}{
		{took: 100 * ms, news: true, want: 10 * ms}, // the first one has opened files, for example
		{took: ms / 10, want: 20 * ms, earliestMin: 5 * ms},
		{took: ms / 10, want: 40 * ms, earliestMin: 5 * ms},
		{took: ms / 10, want: 40 * ms, earliestMin: 5 * ms},
		{took: ms / 10, want: 10 * ms, news: true, busy: true, earliestMin: 5 * ms},
		{took: ms / 10, want: 20 * ms, busy: true, earliestMin: 5 * ms},
		{took: ms / 10, want: 20 * ms, busy: true, earliestMin: 5 * ms},
		{took: ms / 10, want: 40 * ms, earliestMin: 5 * ms},
		{took: 30 * ms, want: 40 * ms, earliestMin: 5 * ms}, // it waited for a processor
		{took: 2 * ms, want: 100 * ms, earliestMin: 100 * ms, busy: true},
		{took: 2 * ms, want: 100 * ms, earliestMin: 100 * ms, news: true},
		{took: 300 * ms, want: 100 * ms, earliestMin: 100 * ms, busy: true},
		{took: 300 * ms, want: 1000 * ms, earliestMin: 1000 * ms, busy: true},
	} {
		ended := now.Add(look.took)
		if got := p.next(now, ended, look.news, look.busy); got != look.want || !p.earliest.Equal(ended.Add(look.earliestMin)) {
			t.Errorf("look %d: %v, %v at the earliest, want %v, %v", i, got, p.earliest.Sub(ended), look.want, look.earliestMin)
		}
		now = ended.Add(look.want)
	}
}

func TestOwnConnectionsAreNoWork(t *testing.T) {
	a := startGo(t)
	c, err := New(Config{Count: Open}, a.port)
	if err != nil {
		t.Fatal(err)
	}
	wantCount(t, c, 0)
	others := a.settled(t)
	x := a.connect(t)
	g := a.hold(t, x)
	becomes(t, others, 1, readable)
	if r, err := c.Count(t.Context()); err != nil || r.InFlight != 0 || r.Arrived != 0 {
		t.Fatalf("got %+v, %v, want nothing", r, err)
	}
	c.blind = true
	wantCount(t, c, 0)
	c.ownEnds = nobody
	becomes(t, c, 1, readable)
	g.release()
	x.answer(t, http.StatusOK)
}

func TestOwnEndsAreThoseOfThisProcess(t *testing.T) {
	l := listenOn(t, ":0")
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(l.port)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
		if ends := ownEnds([]int{1, l.port}); !ends[local] {
			t.Errorf("%v is not among %v", local, ends)
		}
		if ends := ownEnds([]int{1}); len(ends) != 0 {
			t.Errorf("got %v of another port", ends)
		}
		remotes, err := procnet.Kernel().Unfinished(l.port)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for text := range remotes {
			remote, ok := parseRemote(text)
			found = found || ok && remote == local
		}
		if !found {
			t.Errorf("%v is not among %v", local, remotes)
		}
	}
}

func TestParseRemoteRefuses(t *testing.T) {
	for _, text := range []string{"", "0100007F", "0100007F:", "0100007F:XXXX", "01:1F90", "0100007F0100007F:1F90", "ZZ00007F:1F90"} {
		if got, ok := parseRemote(text); ok {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}
