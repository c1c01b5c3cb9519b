package envoy

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// If stats_matcher excludes a statistic that is counted, that is an error. If
// the statistic is not counted, it does not matter.
func TestStatisticsThatAreExcluded(t *testing.T) {
	for _, test := range []struct {
		exclude   string
		listeners string
		says      []string // empty: it can be read, and 2 are in flight, on ingress_http and on my.listener
		want      int64
	}{
		{exclude: `^listener\.my\.listener\.downstream_cx_active$`, says: []string{"no listener.my.listener.downstream_cx_active", "the listener raw"}},
		{exclude: `^listener\.my\.listener\..*`, says: []string{"no listener.my.listener.downstream_cx_active", "the listener raw"}},
		{exclude: `^listener\.my\.listener\..*`, listeners: "^my.listener$", says: []string{"no listener.my.listener.downstream_cx_active"}},
		{exclude: `^listener\.my\.listener\..*`, listeners: "^ingress_http$", want: 1},
		{exclude: `.*downstream_cx_active$`, says: []string{"downstream_cx_active"}},
		{exclude: `^http\.ingress_http\.downstream_rq_active$`, says: []string{"no http.ingress_http.downstream_rq_active", "such a manager"}},
		{exclude: `^http\.ingress_http\..*|^listener\..*\.http\..*`, says: []string{"no http.ingress_http.downstream_rq_active", "listener web has such a manager"}},
		{exclude: `^http\.mixed_http\..*|^listener\..*\.http\..*`, listeners: "^(ingress_http|mixed_http)$", says: []string{"no http.mixed_http.downstream_rq_active"}},
		{exclude: `^http\.mixed_http\..*|^listener\..*\.http\..*`, listeners: "^ingress_http$", want: 1},
		{exclude: `^listener\..*\.http\..*`, want: 2},
		{exclude: `^http\.eg-ready-http\..*`, want: 2},
		{exclude: `^server\..*|^listener_manager\..*`, want: 2},
		{exclude: `.*downstream_rq_total$`, says: []string{"downstream_rq_total", "which counts requests"}},
		{exclude: `^listener\.my\.listener\.downstream_cx_total$`, says: []string{"no listener.my.listener.downstream_cx_total", "which counts new connections"}},
	} {
		t.Run(test.exclude+" "+test.listeners, func(t *testing.T) {
			r := startWith(t, servers.EnvoyOptions{StatsExclude: test.exclude, Dynamic: true})
			held := r.proxy.Hold(t)
			defer held.End(t)
			servers.Connect(t, countertest.Address(r.Raw))
			servers.IdleConnection(t, countertest.Address(r.Port))
			c := r.counterOf(t, test.listeners, r.Port)
			if test.says == nil {
				becomes(t, c, test.want, readable)
				becomes(t, c, test.want, nothing)
				return
			}
			for range 3 {
				wantError(t, c, append(test.says, "stats_matcher")...)
			}
		})
	}
}

// What a pod sends to others is not its work: an idle pool of connections to a
// database never ends.
func TestMesh(t *testing.T) {
	for _, dynamic := range []bool{false, true} {
		t.Run(fmt.Sprint("dynamic ", dynamic), func(t *testing.T) {
			r := startWith(t, servers.EnvoyOptions{Mesh: true, Dynamic: dynamic})
			c := r.counter(t)
			before := becomes(t, c, 0, readable)
			for range 5 {
				servers.IdleConnection(t, countertest.Address(r.Raw))
			}
			becomes(t, r.counterOf(t, "^my.listener$", r.Port), 5, readable)
			becomes(t, r.counterOf(t, "^envoy_internal_inner$", r.Port), 5, readable)
			if after := becomes(t, c, 0, nothing); after.Arrived != before.Arrived || !after.HasOpen || after.Open != 0 {
				t.Fatalf("connections to a database: got %+v after %+v", after, before)
			}
			held := r.proxy.Hold(t)
			becomes(t, c, 1, readable)
			mixed := connectFrom(t, "127.0.0.2", countertest.Address(r.Mixed)) // of a listener without a direction
			becomes(t, c, 2, readable)
			mixed.Close()
			held.End(t)
			becomes(t, c, 0, readable)
		})
	}
}

// On the gateways of a mesh everything is outbound, and is the pod's work.
func TestGatewayOfAMesh(t *testing.T) {
	r := startWith(t, servers.EnvoyOptions{OutboundOnly: true})
	c := r.counter(t)
	becomes(t, c, 0, readable)
	held := r.proxy.Hold(t)
	raw := servers.Connect(t, countertest.Address(r.Raw))
	becomes(t, c, 2, readable)
	raw.Close()
	held.End(t)
	becomes(t, c, 0, readable)
}

// Several managers may share a stat_prefix.
func TestSharedPrefix(t *testing.T) {
	r := startWith(t, servers.EnvoyOptions{SharedPrefix: true})
	c := r.counter(t)
	servers.IdleConnection(t, countertest.Address(r.Ready))
	servers.IdleConnection(t, countertest.Address(r.Mixed))
	becomes(t, c, 0, readable)
	held := r.proxy.Hold(t)
	plain := connectFrom(t, "127.0.0.2", countertest.Address(r.Mixed))
	becomes(t, c, 2, readable)
	// The manager's connections on other listeners do not hide a plain one
	// here. Its requests are those of all these listeners.
	becomes(t, r.counterOf(t, fmt.Sprintf("_%d$", r.Mixed), r.Port), 2, readable)
	plain.Close()
	held.End(t)
	becomes(t, c, 0, readable)
}

// Listeners are added, changed and removed while Envoy runs.
func TestListenersThatChange(t *testing.T) {
	r := startWith(t, servers.EnvoyOptions{Mesh: true, Dynamic: true})
	c := r.counter(t)
	becomes(t, c, 0, readable)

	// A change of only the name in the statistics is noticed.
	r.EditListeners(t, func(one string) string { return strings.Replace(one, "my.listener", "pool", 1) })
	becomes(t, r.counterOf(t, "^pool$", r.Port), 0, countertest.Unreadable)
	becomes(t, c, 0, readable)
	pool := servers.Connect(t, countertest.Address(r.Raw))
	becomes(t, r.counterOf(t, "^pool$", r.Port), 1, readable)
	becomes(t, c, 0, nothing)

	// The connections of a removed listener keep their kind.
	mixed := connectFrom(t, "127.0.0.2", countertest.Address(r.Mixed))
	becomes(t, c, 1, readable)
	r.EditListeners(t, func(one string) string {
		if strings.Contains(one, "name: raw,") || strings.Contains(one, "name: mixed,") {
			return ""
		}
		return one
	})
	wait.Until(t, "the listeners' end", func() bool {
		conn, err := net.Dial("tcp", countertest.Address(r.Mixed))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	fresh := r.counter(t)
	for range 20 { // the checks whether the ports listen are connections as well
		becomes(t, c, 1, notZero)
		// If two listeners with one name are draining, Envoy shows only one. A
		// counter that has not seen the other one before does not know its
		// direction.
		if got, err := fresh.Count(t.Context()); err != nil || got.InFlight == 0 {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	mixed.Close()
	becomes(t, c, 0, readable)
	pool.Close()
	becomes(t, fresh, 0, readable)
	held := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	held.End(t)
}

// After a hot restart the old process finishes its work, which is not visible
// at first.
func TestHotRestart(t *testing.T) {
	for name, o := range map[string]servers.EnvoyOptions{
		"as it comes":            {},
		"flushed with a reading": {FlushOnAdmin: true},
		"flushed every second":   {FlushInterval: "1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.HotRestart = true
			r := startWith(t, o)
			c := r.counter(t)
			becomes(t, c, 0, readable)
			// The reading is never zero while the old process has a request.
			heldBy := func(c *Counter, readings int) {
				t.Helper()
				for range readings {
					if got, err := c.Count(t.Context()); err == nil && got.InFlight == 0 {
						t.Fatalf("got %+v with a request in the old process", got)
					}
				}
				wait.For(t, "a reading", func() error {
					got, err := c.Count(t.Context())
					if err == nil && got.InFlight == 0 {
						t.Fatalf("got %+v with a request in the old process", got)
					}
					return err
				})
			}
			kept := keep(t, r.Port)
			held := r.proxy.Hold(t)
			becomes(t, c, 1, readable)
			r.HotRestart(t)
			young := r.counter(t) // it has not seen the old process
			heldBy(c, 20)
			heldBy(young, 20)
			held.End(t)
			r.proxy.Client.CloseIdleConnections()
			// A connection that the old process still has may carry a request
			// at any time. Its statistics come late: if a reading flushes them,
			// with the next reading.
			old := r.proxy.Backend.Hold(t, kept, countertest.Base(r.Port))
			if o.FlushOnAdmin {
				becomes(t, c, 1, countertest.Anything)
			}
			heldBy(c, 50)
			old.End(t)
			if o.FlushOnAdmin {
				becomes(t, c, 0, readable) // an idle connection is not in doubt
			}
			kept.CloseIdleConnections()
			becomes(t, c, 0, notZero)
			becomes(t, young, 0, countertest.Anything)
			wait.Until(t, "a reading that knows the open connections", func() bool {
				got, err := c.Count(t.Context())
				return err == nil && got.HasOpen
			})
			// The new process is read like any other.
			next := r.proxy.Hold(t)
			becomes(t, c, 1, readable)
			next.End(t)
			becomes(t, c, 0, readable)
		})
	}
}

func TestSecured(t *testing.T) {
	r := start(t)
	s := countertest.NewSecured(t, r.Admin)
	pod := drain.Pod{AppPorts: []int{r.Port}}
	c := r.counterWith(t, Config{Admin: s.URL, CAFile: s.CAFile, TokenFile: s.TokenFile}, pod)
	held := r.proxy.Hold(t)
	becomes(t, c, 1, readable)
	if err := c.StopAccepting(t.Context()); err != nil {
		t.Error(err)
	}
	held.End(t)
	becomes(t, c, 0, readable)
	wantError(t, r.counterWith(t, Config{Admin: s.URL}, pod), "LASTCALL_ENVOY_CA_FILE")
	wantError(t, r.counterWith(t, Config{Admin: s.URL, CAFile: s.CAFile}, pod), "LASTCALL_ENVOY_TOKEN_FILE")
}

func TestParseDump(t *testing.T) {
	body, err := os.ReadFile("testdata/dynamic.json") // of a real Envoy 1.40.0
	if err != nil {
		t.Fatal(err)
	}
	d, err := parseDump(body)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range d.listeners() {
		got = append(got, fmt.Sprint(l))
	}
	if want := []string{
		"{web 127.0.0.1_19080 [in] false false false}",
		"{inner envoy_internal_inner [] false true false}",
		"{six new [] false false false}",
		"{six a_b.c [] false false true}",
		"{pipe /tmp/ev/pipe_x.sock [] false false false}",
		"{six2 [__1]_19085 [] false false false}",
		"{zero 127.0.0.1_0 [] false false false}",
		"{db 127.0.0.1_19432 [] true false true}",
	}; !slices.Equal(got, want) {
		t.Fatalf("got  %q,\nwant %q", got, want)
	}
}

func TestSanitize(t *testing.T) {
	for name, want := range map[string]string{
		"0.0.0.0:80": "0.0.0.0_80", "a:b.c;.": "a_b.c;", ".x": "x", "http://a": "http_a", "a:/b": "a_b", "plain": "plain",
	} {
		if got := sanitize(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func FuzzParseDump(f *testing.F) {
	body, err := os.ReadFile("testdata/dynamic.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"configs":[{"listener":{"address":{"pipe":{}}}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := parseDump(body)
		if err != nil {
			return
		}
		c := config{d.listeners()}
		s := stats{listeners: map[string]listener{}, managers: map[string]manager{}}
		c.attach(s)
		chosen := s.choose(nil, c.leftOut())
		if err := c.missing(s, chosen, nil); err == nil && len(c.listeners) > 0 && slices.ContainsFunc(c.listeners, func(l configured) bool { return !l.draining }) {
			t.Fatalf("listeners without statistics, and no error: %+v", c)
		}
		anyOf(d.dynamicNames())
	})
}
