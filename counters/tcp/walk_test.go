package tcp

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"
)

// oneByOne makes c check the connections that exist now one by one, as long as
// none of them is missing, even if others are made.
func oneByOne(t testing.TB, c *Counter) {
	t.Helper()
	c.walk.accepted = func() (uint64, error) { return 7, nil }
	c.walk.count, c.walk.since, c.walk.before = 7, time.Now().Add(-settling), time.Time{}
	if _, err := c.Count(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.walk.before = time.Now().Add(time.Hour)
}

// walksIn reports whether do makes c walk through the kernel's table.
func walksIn(c *Counter, do func()) bool {
	before := c.walk.before
	do()
	return c.walk.before != before
}

func TestConnectionsAreLookedAtOneByOne(t *testing.T) {
	for name, test := range map[string]struct{ listen, dial string }{
		"IPv4":            {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":            {"[::1]:0", "::1"},
		"both, over IPv4": {":0", "127.0.0.1"},
		"both, over IPv6": {":0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listenOn(t, test.listen)
			c := l.settled(t)
			var near, far []*client
			for range atOnce + 5 { // more than one call asks for
				conn, err := net.Dial("tcp", net.JoinHostPort(test.dial, strconv.Itoa(l.port)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				near, far = append(near, &client{Conn: conn}), append(far, l.accept(t))
			}
			oneByOne(t, c)
			wantCount(t, c, 0)
			before, _ := c.Count(t.Context())
			if walksIn(c, func() {
				for i := range near {
					near[i].say(t, request1)
				}
				becomes(t, c, int64(len(near)), readable)
			}) {
				t.Error("the kernel's table was gone through")
			}
			if after, err := c.Count(t.Context()); err != nil || after.Arrived != before.Arrived+uint64(len(near)) {
				t.Errorf("got %+v, %v, want %d arrivals", after, err, len(near))
			}

			// The app closes: the kernel still has the connections, but nothing
			// is left to do on them.
			far[0].Read(make([]byte, len(request1)))
			far[0].Close()
			if walksIn(c, func() { becomes(t, c, int64(len(near)-1), readable) }) {
				t.Error("the kernel's table was gone through")
			}
			// One connection is gone altogether: this causes a walk.
			far[1].Conn.(*net.TCPConn).SetLinger(0)
			far[1].Close()
			if !walksIn(c, func() { becomes(t, c, int64(len(near)-2), readable) }) {
				t.Error("the kernel's table was not gone through")
			}
		})
	}
}

func TestNewConnectionsAreLookedFor(t *testing.T) {
	for name, change := range map[string]func(*Counter){
		"one was made": func(c *Counter) {
			c.walk.accepted, c.walk.before = func() (uint64, error) { return 8, nil }, time.Now()
		},
		"nobody knows":                   func(c *Counter) { c.walk.accepted = func() (uint64, error) { return 7, errors.New("unreadable") } },
		"the last walk was long ago":     func(c *Counter) { c.walk.before = time.Now().Add(-walkEvery) },
		"it was soon after one was made": func(c *Counter) { c.walk.before = c.walk.since.Add(settling - 1) },
		"it was cut short":               func(c *Counter) { c.walk.begin() },
		"it has found too many":          func(c *Counter) { c.walk.many = true },
		"one is not found":               func(c *Counter) { c.walk.ids[0].id[0] ^= 1 },
		"the kernel refuses to look so":  func(c *Counter) { c.walk.ids[0].family = 77 },
	} {
		t.Run(name, func(t *testing.T) {
			l := listenOn(t, "127.0.0.1:0")
			c := l.settled(t)
			l.connect(t)
			oneByOne(t, c)
			l.connect(t).say(t, request1)
			becomes(t, l.settled(t), 1, readable)
			wantCount(t, c, 0) // nothing has reported the second connection
			change(c)
			becomes(t, c, 1, readable)
		})
	}
}

func TestManyConnectionsAreNotLookedAtOneByOne(t *testing.T) {
	l := listenOn(t, "127.0.0.1:0")
	c := l.settled(t)
	for i := range fewEnough + 1 {
		l.connect(t)
		l.accept(t)
		if i < fewEnough-1 {
			continue
		}
		oneByOne(t, c)
		if few, walked := len(c.walk.ids) == i+1, walksIn(c, func() { wantCount(t, c, 0) }); few == walked {
			t.Fatalf("%d connections: %d are remembered, and the table was gone through: %v", i+1, len(c.walk.ids), walked)
		}
	}
}

func TestForeignConnectionsTakeNoMemory(t *testing.T) {
	l, foreign := listenOn(t, "127.0.0.1:0"), listenOn(t, "127.0.0.1:0")
	l.connect(t)
	c := l.settled(t)
	allocations := func() float64 {
		return testing.AllocsPerRun(20, func() {
			c.walk.begin() // walk through the table
			if _, err := c.Count(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	before := allocations()
	const many = 500
	for range many {
		foreign.connect(t)
		foreign.accept(t)
	}
	if after := allocations(); after > before+many/10 || len(c.known) != 1 || len(c.walk.ids) != 1 {
		t.Errorf("a reading takes %v allocations, and %v with %d foreign connections; %d are remembered", before, after, many, len(c.known))
	}
}

// Whatever happens in whatever order, each check shows the actual state.
func TestRandomConnections(t *testing.T) {
	for seed := range uint64(4) {
		l := listenOn(t, "127.0.0.1:0")
		c := l.settled(t)
		made := uint64(0)
		c.walk.accepted = func() (uint64, error) { return made, nil }
		random := rand.New(rand.NewPCG(seed, 0))
		type connection struct{ near, far *client }
		var fresh, busy, answered []connection
		// take removes a connection.
		take := func(from *[]connection) (one connection, ok bool) {
			if len(*from) == 0 {
				return one, false
			}
			i := random.IntN(len(*from))
			one = (*from)[i]
			*from = slices.Delete(*from, i, i+1)
			return one, true
		}
		walks, looks := 0, 0
		for range 300 {
			switch random.IntN(12) {
			case 0:
				fresh = append(fresh, connection{l.connect(t), l.accept(t)})
				made++
			case 1:
				if one, ok := take(&fresh); ok {
					echo(t, one.near, one.far, request1)
					busy = append(busy, one)
				}
			case 2:
				if one, ok := take(&busy); ok {
					echo(t, one.far, one.near, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					answered = append(answered, one)
				}
			case 3:
				if one, ok := take(&busy); ok { // the app gives up
					one.far.Close()
					one.near.Close()
				}
			case 4:
				if one, ok := take(&answered); ok {
					one.near.Close()
					one.far.Close()
				}
			}
			looks++
			if walksIn(c, func() { becomes(t, c, int64(len(busy)), readable) }) {
				walks++
			}
			c.walk.since = c.walk.since.Add(-settling) // time passes
		}
		t.Logf("seed %d: %d looks, %d of them by the table", seed, looks, walks)
		if walks > looks/2 {
			t.Errorf("%d of %d looks were by the table", walks, looks)
		}
	}
}
