// Package compare drains pods in several ways, side by side, with the same scripted
// work, and measures the cost of each way: failed requests and time.
//
// Apps, sidecars, proxies and the registry are real processes. The clients,
// Kubernetes' endpoints, the kubelet, and the rules of the other tools are
// simulated. These rules are in rules.go.
package compare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// Settings are the settings of a comparison.
type Settings struct {
	workload
	Quiet         time.Duration // LASTCALL_QUIET
	endpointsWait time.Duration // LASTCALL_ENDPOINTS_WAIT
	serverCache   time.Duration // how often the registry renews its answers
	sleep         time.Duration // how long a shell hook sleeps
	calm          time.Duration // normal operation before the deletion
	youngCalm     time.Duration // the same for an app that has just started
	grace         time.Duration // terminationGracePeriodSeconds
	runs          int           // of each approach
	lastcallRuns  int
	gateway       envoyGateway
	contour       contour
	knative       knative
}

// Defaults returns the settings of `make bench`. The registry is faster than with
// Eureka's defaults, where server and client take 30 s each: with those, no `sleep
// 30` would be long enough.
func Defaults() Settings {
	return Settings{
		workload: workload{
			shortest: 100 * time.Millisecond, longest: 5 * time.Second,
			restLeast: 50 * time.Millisecond, restMost: 250 * time.Millisecond,
			idle:     90 * time.Second, // net/http's default
			lagLeast: 500 * time.Millisecond, lagMost: 2 * time.Second,
			refresh:   10 * time.Second,
			newcomers: 250 * time.Millisecond,
		},
		Quiet:         time.Second,
		endpointsWait: 3 * time.Second,
		serverCache:   3 * time.Second,
		sleep:         30 * time.Second,
		calm:          40 * time.Second,
		youngCalm:     5 * time.Second,
		grace:         100 * time.Second,
		runs:          5,
		lastcallRuns:  7,
		gateway:       newEnvoyGateway(),
		contour:       newContour(),
		knative:       newKnative(),
	}
}

// clients is the number of clients.
const clients = 16

// testbed is shared by all runs.
type testbed struct {
	Settings
	program *sidecar.Program
	self    string // path of this program, which is the app too
	http    *http.Client
	eureka  string // the registry's URL
	apps    int    // number of apps registered in it
}

// Run makes all runs, many at a time, and returns their results.
func Run(b testing.TB, program *sidecar.Program, s Settings) []Result {
	b.Helper()
	t := &testbed{Settings: s, program: program, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
	defer t.http.CloseIdleConnections()
	var err error
	if t.self, err = os.Executable(); err != nil {
		b.Fatal(err)
	}
	servers.NeedEureka(b)
	registry, err := servers.StartEureka(servers.EurekaOptions{ResponseCache: s.serverCache})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(registry.Stop)
	t.eureka = registry.URLs[0]

	// The other approaches run first, then Lastcall's: the others take whole
	// seconds, so the load of all runs at once does not influence them.
	others := approaches(s.runs, s.lastcallRuns)
	first := slices.IndexFunc(others, func(a approach) bool { return a.name == Lastcall })
	others, ours := others[:first], others[first:]
	return append(t.all(b, others), t.all(b, ours)...)
}

// all makes all runs of the given approaches at the same time.
func (t *testbed) all(b testing.TB, of []approach) []Result {
	b.Helper()
	var runs []*run
	for _, a := range of {
		for _, scenario := range []Scenario{ByEndpoints, ByRegistry} {
			if a.only != "" && a.only != scenario {
				continue
			}
			for n := range a.runs {
				runs = append(runs, t.prepare(b, a, scenario, n))
			}
		}
	}
	results, failed := make([]Result, len(runs)), make([]error, len(runs))
	var all sync.WaitGroup
	for n, r := range runs {
		r.calm += time.Duration(n) * apart
		all.Go(func() { results[n], failed[n] = r.play(context.Background()) })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		b.Fatal(err)
	}
	return results
}

// apart is the time between two deletions, so that they do not all happen at the
// same moment.
const apart = 50 * time.Millisecond

// prepare starts the pods of a run.
func (t *testbed) prepare(b testing.TB, a approach, scenario Scenario, n int) *run {
	b.Helper()
	r := &run{
		workload: t.workload,
		scenario: scenario,
		approach: a.name,
		seed:     uint64(n + 1), //nolint:gosec // a small number
		service:  t.eureka,
		calm:     t.calm,
		grace:    t.grace,
		after:    t.lagMost,
	}
	if a.young {
		r.calm = t.youngCalm
	}
	r.byEndpoints = clients
	name := ""
	if scenario == ByRegistry {
		r.byEndpoints, r.byRegistry = clients/2, clients/2
		r.after = t.serverCache + t.refresh + time.Second
		r.calm += t.serverCache
		t.apps++
		name = fmt.Sprintf("WEB-%d", t.apps)
	}
	r.staying = t.pod(b, name, "staying", false, false)
	r.leaving = t.pod(b, name, "leaving", a.envoy, a.closes)
	r.leaving.hook = a.hook(b, t, r.leaving)
	return r
}

// pod starts a pod, and registers it under name if name is not empty.
func (t *testbed) pod(b testing.TB, name, id string, behindEnvoy, closes bool) *pod {
	b.Helper()
	draining := ""
	if closes {
		draining = filepath.Join(b.TempDir(), "draining")
	}
	app, err := startApp(t.self, draining)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(app.kill)
	p := &pod{app: app, address: app.address, draining: draining, stop: func() {}}
	if behindEnvoy {
		e := servers.StartEnvoy(b, &servers.Backend{Address: app.address}, servers.EnvoyOptions{})
		p.address, p.admin = fmt.Sprintf("127.0.0.1:%d", e.Port), e.Admin
		p.stop = e.Kill // SIGTERM also ends it at once
	}
	if name != "" {
		p.instance = &instance{service: t.eureka, app: name, id: name + "-" + id, address: p.address, http: t.http}
		if err := p.instance.register(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	return p
}
