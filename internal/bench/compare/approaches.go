package compare

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"lastcall/internal/test/sidecar"
)

// Lastcall is this project's approach. The other two are the same approach with
// another app: one closes its connections during the drain
// (LASTCALL_DRAINING_FILE), the other has just started.
const (
	Lastcall       = "Lastcall, `tcp`"
	lastcallCloses = "Lastcall, `tcp`; the app closes its connections"
	lastcallYoung  = "Lastcall, `tcp`; the app has just started"
)

// approach is a way to drain a pod before it ends.
type approach struct {
	name  string
	runs  int
	envoy bool // clients reach the pod through an Envoy
	// closes means that the app closes its connections during the drain.
	closes bool
	young  bool     // the app has just started
	only   Scenario // the only scenario in which it differs from others; empty: both
	// hook returns the preStop hook of a pod that is ready.
	hook func(b testing.TB, t *testbed, p *pod) func(context.Context) error
}

// approaches returns the compared approaches, in the order of the table.
func approaches(runs, lastcallRuns int) []approach {
	return []approach{
		{name: "no hook", runs: runs, hook: func(testing.TB, *testbed, *pod) func(context.Context) error {
			return func(context.Context) error { return nil }
		}},
		{name: "`sleep 30`", runs: runs, hook: func(_ testing.TB, t *testbed, _ *pod) func(context.Context) error {
			return func(ctx context.Context) error { return sleep(ctx, t.sleep) }
		}},
		{name: "registry call, `sleep 30`", runs: runs, only: ByRegistry, hook: func(_ testing.TB, t *testbed, p *pod) func(context.Context) error {
			return func(ctx context.Context) error {
				if err := p.instance.withdraw(ctx); err != nil {
					return err
				}
				return sleep(ctx, t.sleep)
			}
		}},
		{name: "connections every 1 s (Envoy Gateway)", runs: runs, envoy: true, hook: func(_ testing.TB, t *testbed, p *pod) func(context.Context) error {
			return func(ctx context.Context) error { return t.gateway.wait(ctx, forGateway(p.admin, t.http)) }
		}},
		{name: "connections every 5 s (Contour)", runs: runs, envoy: true, hook: func(_ testing.TB, t *testbed, p *pod) func(context.Context) error {
			return func(ctx context.Context) error { return t.contour.wait(ctx, forContour(p.admin, t.http)) }
		}},
		{name: "30 s without a request (Knative)", runs: runs, hook: func(_ testing.TB, t *testbed, p *pod) func(context.Context) error {
			return func(ctx context.Context) error { return t.knative.wait(ctx, p.app.arrived) }
		}},
		{name: Lastcall, runs: lastcallRuns, hook: lastcall},
		{name: lastcallCloses, runs: lastcallRuns, closes: true, hook: lastcall},
		{name: lastcallYoung, runs: lastcallRuns, young: true, hook: lastcall},
	}
}

// lastcall starts a sidecar and returns its hook.
func lastcall(b testing.TB, t *testbed, p *pod) func(context.Context) error {
	b.Helper()
	_, port, err := net.SplitHostPort(p.address)
	if err != nil {
		b.Fatal(err)
	}
	env := []string{
		"LASTCALL_APP_PORT=" + port,
		"LASTCALL_POD_IP=127.0.0.1",
		"LASTCALL_COUNTERS=tcp",
		"LASTCALL_GRACE_PERIOD=" + t.grace.String(),
		"LASTCALL_QUIET=" + t.Quiet.String(),
		"LASTCALL_ENDPOINTS_WAIT=" + t.endpointsWait.String(),
	}
	if p.draining != "" {
		env = append(env, "LASTCALL_DRAINING_FILE="+p.draining)
	}
	if p.instance != nil {
		env = append(env,
			"LASTCALL_REGISTRIES=eureka",
			"LASTCALL_EUREKA_URLS="+p.instance.service,
			"LASTCALL_EUREKA_APP="+p.instance.app,
			"LASTCALL_EUREKA_CLIENT_REFRESH="+t.refresh.String(),
		)
	}
	s := sidecar.Start(b, t.program, env...)
	if p.instance != nil {
		s.AwaitLog(b, "instance found")
	}
	p.stop = func() { // a native sidecar gets its SIGTERM after the app has ended
		<-p.app.exited
		_ = syscall.Kill(s.Pid, syscall.SIGTERM) // it may have ended by itself
	}
	return func(ctx context.Context) error {
		a := <-s.PreStop(ctx)
		if a.Err != nil || a.Code != http.StatusOK {
			return fmt.Errorf("answered %d %s %w", a.Code, strings.TrimSpace(a.Body), a.Err)
		}
		p.said = a.Body
		return nil
	}
}
