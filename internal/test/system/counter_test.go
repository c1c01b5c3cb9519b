package system

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// proxy is a proxy in front of the app, with requests in flight.
type proxy interface {
	Kill()
	Freeze(testing.TB)
	Thaw(testing.TB)
}

// proxies start a proxy, and return it with its port and the sidecar's settings.
var proxies = map[string]func(*testing.T, *servers.Backend) (p proxy, port int, settings string){
	"nginx": func(t *testing.T, b *servers.Backend) (proxy, int, string) {
		n := servers.StartNginx(t, b)
		return n, n.Port, "LASTCALL_NGINX_STATUS=" + n.Status
	},
	"haproxy": func(t *testing.T, b *servers.Backend) (proxy, int, string) {
		h := servers.StartHAProxy(t, b)
		return h, h.Port, "LASTCALL_HAPROXY_STATS=" + h.Stats
	},
	"envoy": func(t *testing.T, b *servers.Backend) (proxy, int, string) {
		e := servers.StartEnvoy(t, b, servers.EnvoyOptions{})
		return e, e.Port, "LASTCALL_ENVOY_ADMIN=" + e.Admin
	},
}

func TestProxyFailsInTheMiddle(t *testing.T) {
	for name, start := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := servers.StartBackend(t)
			p, port, settings := start(t, backend)
			s := sidecar.Start(t, &program, settings, "LASTCALL_COUNTERS="+name,
				"LASTCALL_APP_PORT="+strconv.Itoa(port), "LASTCALL_GRACE_PERIOD=10m",
				"LASTCALL_ENDPOINTS_WAIT=100ms", "LASTCALL_QUIET=100ms")
			client, base := servers.Client(t), "http://127.0.0.1:"+strconv.Itoa(port)
			first, second := backend.Hold(t, client, base), backend.Hold(t, client, base)
			hook := s.PreStop(t.Context())
			s.Await(t, "the drain waiting for both requests", holds(2))

			// A proxy that hangs does not count as zero.
			p.Freeze(t)
			s.Await(t, "the counter being unreadable", func(status drain.Status) bool {
				return status.InFlight == nil && status.Counters[0].Error != ""
			})
			waiting(t, hook)
			p.Thaw(t)
			s.Await(t, "the drain waiting for both requests again", holds(2))
			first.End(t)
			s.Await(t, "the drain waiting for the other one", holds(1))
			waiting(t, hook)

			// A proxy that is gone for good counts as zero: its work is gone too.
			p.Kill()
			r := drains(t, hook)
			if r.InFlight == nil || *r.InFlight != 0 {
				t.Errorf("the report is %+v", r)
			}
			second.Release()
			if err := second.Answer(t); err == nil {
				t.Error("the request of the proxy that was killed was answered")
			}
		})
	}
}

func TestFileIsReplaced(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, a *app){
		"by garbage":         func(_ *testing.T, a *app) { a.write("\x00lots\xff of <work>\n") },
		"by a negative":      func(_ *testing.T, a *app) { a.write("-1") },
		"by nothing":         func(_ *testing.T, a *app) { a.write("") },
		"by far too much":    func(_ *testing.T, a *app) { a.write(strings.Repeat("0", 1<<20)) },
		"and is not there":   func(t *testing.T, a *app) { check(t, os.Remove(a.file)) },
		"by an empty folder": func(t *testing.T, a *app) { check(t, os.Remove(a.file)); check(t, os.Mkdir(a.file, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := startApp(t)
			s := sidecar.Start(t, &program, app.env()...)
			end := app.request()
			hook := s.PreStop(t.Context())
			s.Await(t, "the drain waiting for the request", holds(1))
			replace(t, app)
			s.Await(t, "the counter being unreadable", func(status drain.Status) bool {
				return status.InFlight == nil && status.Counters[0].Error != ""
			})
			waiting(t, hook)
			_ = os.Remove(app.file) // a folder cannot be replaced by a file
			app.write("1")
			s.Await(t, "the drain waiting for the request again", holds(1))
			waiting(t, hook)
			end()
			drains(t, hook)
		})
	}
}

// A counter that stays unreadable delays the drain until the budget ends. The
// process then exits as if work were in flight.
func TestFileStaysUnreadable(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	s := sidecar.Start(t, &program, app.env(short()...)...)
	app.write("lots")
	a := prestop(t, s)
	r := a.Report(t)
	if r.Outcome != drain.OutcomeExpired || r.InFlight != nil || !strings.Contains(r.WaitingFor, "file to be readable") {
		t.Errorf("the report is %s", a.Body)
	}
	s.Signal(t, os.Interrupt)
	exits(t, s, 1)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
