package dashboard

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

var picture = flag.String("picture", "", "the file that BenchmarkPicture draws the dashboard into")

// BenchmarkPicture draws the picture in the docs. Before, for some minutes, pods are
// replaced, a registry hangs, a request never ends, and an app is restarted:
//
//	go test -run '^$' -bench Picture -benchtime 1x ./internal/test/dashboard -args -picture ../../../docs/dashboard.svg
func BenchmarkPicture(b *testing.B) {
	consul := servers.StartConsul(b, servers.ConsulOptions{})
	prom := startPrometheus(b, time.Second)
	began := time.Now()

	var serving []*busyPod
	for range 4 {
		serving = append(serving, startBusy(b, consul, prom))
	}
	pause(20 * time.Second)
	serving = replace(b, serving, consul, prom)
	pause(15 * time.Second)

	// A counter is unreadable for a while.
	serving[0].hide.Store(true)
	pause(20 * time.Second)
	serving[0].hide.Store(false)
	pause(10 * time.Second)

	// The registry hangs at the beginning of the next rollout, in which one pod has
	// a request that never ends.
	serving[1].stuck.Store(true)
	consul.Freeze(b)
	var thawed sync.WaitGroup
	thawed.Go(func() {
		pause(12 * time.Second)
		consul.Thaw(b)
	})
	for _, p := range serving {
		p.leave(b, prom)
	}
	thawed.Wait()
	var fresh []*busyPod
	for range 4 {
		fresh = append(fresh, startBusy(b, consul, prom))
	}
	pause(10 * time.Second)
	// An app is restarted.
	fresh[1].app.stop()
	pause(2 * time.Second)
	fresh[1].app.start(b)
	pause(8 * time.Second)

	// The cluster side does not run here.
	d := readDashboard(b)
	d.Panels = slices.DeleteFunc(d.Panels, func(p panel) bool {
		return strings.Contains(p.Targets[0].Expr, "lastcall_gate_") || strings.Contains(p.Targets[0].Expr, "lastcall_admission_")
	})
	text := draw(b, d, prom, view{from: began, to: time.Now(), interval: time.Second, rate: 15 * time.Second})
	if err := os.WriteFile(*picture, text, 0o644); err != nil {
		b.Fatalf("set -picture: %v", err)
	}
}

func pause(d time.Duration) { <-time.After(d) }

// busyPod is a pod under load.
type busyPod struct {
	*pod
	app                  *app
	hide, stuck, leaving atomic.Bool
	stop                 context.CancelFunc
	load                 sync.WaitGroup
}

// pods numbers the pods, for their names.
var pods atomic.Int64

func startBusy(t testing.TB, consul *servers.ConsulAgent, prom *prometheus) *busyPod {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	app := startApp(t)
	b := &busyPod{
		pod: startPod(t, "web-"+strconv.FormatInt(pods.Add(1), 10), consul, prom, "LASTCALL_COUNTERS=file,tcp", "LASTCALL_APP_PORT="+app.port()),
		app: app, stop: stop,
	}
	b.load.Go(func() { b.work(ctx, t) })
	b.load.Go(func() { b.ask(ctx) })
	t.Cleanup(b.end)
	return b
}

// work changes the number of requests in flight, as real traffic would. When the
// pod drains, fewer arrive.
func (b *busyPod) work(ctx context.Context, t testing.TB) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 3; ; {
		n = max(0, n+rand.IntN(5)-2)
		if b.leaving.Load() {
			n = max(0, n-1-rand.IntN(2))
		}
		n = min(n, 9)
		if b.stuck.Load() {
			n = max(n, 1)
		}
		if b.hide.Load() {
			_ = os.Remove(b.file) // it may not exist
		} else {
			b.inFlight(t, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask is a client that sends requests to the app on one connection, until the pod
// drains.
func (b *busyPod) ask(ctx context.Context) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for ctx.Err() == nil && !b.leaving.Load() {
		takes := time.Duration(rand.IntN(700)) * time.Millisecond
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.app.address+"/?"+takes.String(), nil)
		if err == nil {
			var resp *http.Response
			if resp, err = transport.RoundTrip(req); err == nil {
				err = resp.Body.Close()
			}
		}
		if err != nil {
			pause(100 * time.Millisecond) // the app is being restarted
		}
	}
}

func (b *busyPod) end() {
	b.stop()
	b.load.Wait()
	b.Stop()
}

// leave drains a pod and ends it, as a deletion does.
func (b *busyPod) leave(t testing.TB, prom *prometheus) {
	t.Helper()
	b.leaving.Store(true)
	if a := sidecar.Wait(t, b.PreStop(t.Context()), patience); a.Err != nil {
		t.Fatalf("%s: %v", b.name, a.Err)
	}
	pause(2 * time.Second) // for the app's end and a last scrape
	prom.forget(t, b.name)
	b.app.stop()
	b.end()
}

// replace is a rolling restart: it replaces the pods one after the other.
func replace(t testing.TB, old []*busyPod, consul *servers.ConsulAgent, prom *prometheus) (fresh []*busyPod) {
	t.Helper()
	for _, b := range old {
		n := startBusy(t, consul, prom)
		n.Want(t, http.StatusOK, http.MethodGet, "/readyz")
		fresh = append(fresh, n)
		pause(3 * time.Second)
		b.leave(t, prom)
	}
	return fresh
}
