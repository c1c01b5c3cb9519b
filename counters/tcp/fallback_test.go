package tcp

import (
	"net/http"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/procnet"
)

// fallback drives an app for the suite, for a counter whose kernel diagnostics
// are refused. It leaves out what such a counter cannot do, which is tested
// below: idle connections are not distinguished from busy ones, so a request
// ends with its connection; and arrivals are not reported.
type fallback struct {
	*app
	counters []*Counter
}

func (f *fallback) Counter(t *testing.T) drain.Counter {
	c := newCounter(t, Config{}, f.port)
	c.blind = true
	f.counters = append(f.counters, c)
	return c
}

func (f *fallback) Begin(t *testing.T) func() {
	c := f.connect(t)
	g := f.gate()
	c.say(t, "GET /hold?id="+g.id+" HTTP/1.1\r\nHost: test\r\nUser-Agent: a test of lastcall\r\nConnection: close\r\n\r\n")
	g.reached(t)
	return func() {
		g.release()
		c.answer(t, http.StatusOK)
		c.Close()
	}
}

func (f *fallback) Idle(*testing.T) bool { return false }
func (f *fallback) Arrivals() bool       { return false }

func (f *fallback) Break(*testing.T) func() {
	read := func(table procnet.Table) {
		for _, c := range f.counters {
			c.lock()
			c.table = table
			c.unlock()
		}
	}
	read(procnet.Table{"testdata/server.py"})
	return func() { read(procnet.Kernel()) }
}

func TestSuiteWhereNetlinkIsRefused(t *testing.T) {
	for _, name := range []string{"go", "nginx"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			countertest.Run(t, func(t *testing.T) countertest.Harness {
				f := &fallback{app: serverApps[name](t)}
				becomes(t, f.Counter(t), 0, readable) // the connection that showed that the app is up has ended
				return f
			})
		})
	}
}

func TestIdleConnectionsCountWhereNetlinkIsRefused(t *testing.T) {
	a := startGo(t)
	for _, mode := range []string{Requests, Active, Open} {
		c := newCounter(t, Config{Count: mode}, a.port)
		c.blind = true
		wantCount(t, c, 0)
		silent := a.connect(t)
		becomes(t, c, 1, readable)
		used := a.idle(t, 1)
		becomes(t, c, 2, readable)
		if r, err := c.Count(t.Context()); err != nil || r.HasArrived {
			t.Errorf("%s: got %+v, %v: arrivals cannot be told", mode, r, err)
		}
		silent.Close()
		used.Close()
		becomes(t, c, 0, readable)
	}
}
