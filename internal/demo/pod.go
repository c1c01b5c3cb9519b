package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"lastcall/counters/file"
)

// pod is an app and, in the second act, its sidecar: two processes that share a
// folder, as two containers share a volume.
type pod struct {
	name     string
	trace    *trace
	app      *process
	sidecar  *process // nil in the first act
	inFlight *file.Counter
	kubelet  *http.Client // without timeouts, like the kubelet's
}

// newPod starts a pod, and returns when it is ready.
func (s *stage) newPod(ctx context.Context, tr *trace, name, eureka string, withSidecar bool) (*pod, error) {
	tr.moves(name, starting, "")
	volume := filepath.Join(s.dir, tr.title, name)
	if err := os.MkdirAll(volume, 0o700); err != nil {
		return nil, err
	}
	p := &pod{name: name, trace: tr, kubelet: &http.Client{}}
	var err error
	number := filepath.Join(volume, "inflight")
	if p.inFlight, err = file.New(file.Config{Path: number}); err != nil {
		return nil, err
	}
	told, err := json.Marshal(appConfig{Pod: name, Eureka: eureka, File: number, Heartbeat: s.heartbeat, Longest: s.longest})
	if err != nil {
		return nil, err
	}
	if p.app, err = start(ctx, name+"'s app", s.appCommand, map[string]string{appVariable: string(told)}); err != nil {
		return nil, err
	}
	if !withSidecar {
		tr.moves(name, serving, "")
		return p, nil
	}
	_, port, err := net.SplitHostPort(p.app.address)
	if err != nil {
		return p, err
	}
	p.sidecar, err = start(ctx, name+"'s sidecar", s.sidecarCommand, map[string]string{
		"LASTCALL_LISTEN":                "127.0.0.1:0",
		"LASTCALL_POD_NAME":              name,
		"LASTCALL_POD_IP":                "127.0.0.1",
		"LASTCALL_APP_PORT":              port,
		"LASTCALL_GRACE_PERIOD":          s.grace.String(),
		"LASTCALL_ENDPOINTS_WAIT":        s.endpoints.String(),
		"LASTCALL_QUIET":                 s.quiet.String(),
		"LASTCALL_REGISTRIES":            "eureka",
		"LASTCALL_EUREKA_URLS":           eureka,
		"LASTCALL_EUREKA_APP":            appName,
		"LASTCALL_EUREKA_CLIENT_REFRESH": s.refresh.String(),
		"LASTCALL_COUNTERS":              "file",
		"LASTCALL_FILE_PATH":             number,
	})
	if err != nil {
		return p, err
	}
	if code, err := p.get(ctx, "/readyz", nil); code != http.StatusOK {
		return p, fmt.Errorf("%s's sidecar is not ready: %d %w", name, code, err)
	}
	tr.moves(name, serving, "")
	return p, nil
}

// working returns a text with the app's number of requests in flight.
func (p *pod) working(ctx context.Context) string {
	r, err := p.inFlight.Count(ctx)
	if err != nil {
		return "its requests cannot be counted"
	}
	return fmt.Sprintf("%d in flight", r.InFlight)
}

// report is the part of /prestop's answer that is shown.
type report struct {
	Outcome string `json:"outcome"`
	Waiting string `json:"waiting_for"`
	Phases  []struct {
		Phase   phase   `json:"phase"`
		Seconds float64 `json:"seconds"`
	} `json:"phases"`
}

// leaving holds the durations of a pod's end.
type leaving struct {
	whole  time.Duration
	phases map[phase]time.Duration
}

// remove does what the kubelet does with a deleted pod: it calls the preStop hook,
// sends SIGTERM to the app, then to the sidecar, which is a native one, and SIGKILL
// to what is left at the end of the grace period.
func (p *pod) remove(ctx context.Context, grace time.Duration) (leaving, error) {
	began := time.Now()
	l := leaving{phases: map[phase]time.Duration{}}
	var failed error
	if p.sidecar != nil {
		r, err := p.preStop(ctx, grace)
		if err != nil {
			failed = fmt.Errorf("%s's preStop hook: %w", p.name, err)
		} else if r.Outcome != "drained" {
			failed = fmt.Errorf("%s's drain: %s, waiting for %s", p.name, r.Outcome, r.Waiting)
		}
		for _, spent := range r.Phases {
			l.phases[spent.Phase] = time.Duration(spent.Seconds * float64(time.Second))
		}
	}
	left := func() time.Duration { return max(grace-time.Since(began), 2*time.Second) }
	p.trace.moves(p.name, stopping, "SIGTERM, "+p.working(ctx))
	stopped := time.Now()
	if !p.app.end(ctx, left()) {
		failed = errors.Join(failed, fmt.Errorf("%s's app failed or was killed: %s", p.name, p.app.lastWords()))
	}
	if p.sidecar != nil && !p.sidecar.end(ctx, left()) {
		failed = errors.Join(failed, fmt.Errorf("%s's sidecar failed or was killed: %s", p.name, p.sidecar.lastWords()))
	}
	if ctx.Err() != nil {
		return l, ctx.Err() // the demo was stopped
	}
	l.phases[stopping] = time.Since(stopped)
	l.whole = time.Since(began)
	p.trace.moves(p.name, gone, fmt.Sprintf("after %.1f s", l.whole.Seconds()))
	return l, failed
}

// preStop calls the hook as the kubelet does. Meanwhile it shows the sidecar's
// phases.
func (p *pod) preStop(ctx context.Context, grace time.Duration) (r report, err error) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	p.trace.moves(p.name, withdrawing, "preStop")
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	shown := map[phase]bool{withdrawing: true}
	go func() {
		defer close(watched)
		p.watch(watching, shown)
	}()
	_, err = p.get(ctx, "/prestop", &r)
	stop()
	<-watched
	for _, passed := range r.Phases {
		if p.shows(passed.Phase) && !shown[passed.Phase] { // it was too short to be seen
			p.trace.moves(p.name, passed.Phase, p.working(ctx))
		}
	}
	return r, err
}

// watchEvery is how often the sidecar's status is read.
const watchEvery = 50 * time.Millisecond

// shows reports whether a phase of the sidecar is shown to people.
func (p *pod) shows(ph phase) bool {
	return ph == withdrawing || ph == propagating || ph == draining
}

// watch shows the sidecar's phases, and records them in shown.
func (p *pod) watch(ctx context.Context, shown map[phase]bool) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var status struct{ Phase phase }
		if _, err := p.get(ctx, "/status", &status); err != nil {
			continue // if the error persists, the hook fails too
		}
		if p.shows(status.Phase) {
			shown[status.Phase] = true
			p.trace.moves(p.name, status.Phase, p.working(ctx))
		}
	}
}

// maxStatus is the maximum size of a sidecar's answer, in bytes.
const maxStatus = 64 << 10

// get calls the sidecar as the kubelet would, and decodes its JSON answer. It
// returns any status code without an error.
func (p *pod) get(ctx context.Context, path string, into any) (code int, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.sidecar.address+path, http.NoBody)
	if err != nil {
		return 0, err
	}
	q.Header.Set("User-Agent", "kube-lifecycle/1.34")
	q.Header.Set("Accept", "*/*")
	a, err := p.kubelet.Do(q)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, maxStatus))
	if err == nil && into != nil {
		err = json.Unmarshal(body, into)
	}
	return a.StatusCode, err
}

// kill ends the pod's remaining processes.
func (p *pod) kill() {
	for _, one := range []*process{p.app, p.sidecar} {
		if one != nil {
			one.kill()
		}
	}
}
