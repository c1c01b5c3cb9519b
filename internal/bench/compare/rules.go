package compare

import (
	"context"
	"time"
)

// Below are the rules by which other tools decide when a pod may end, taken from
// their sources of mid-2026, with their defaults. All of them end early when ctx
// ends, that is, at the end of the pod's grace period.

// sleep is the rule of a shell hook.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A proxy is an Envoy to drain.
type proxy interface {
	// failHealthChecks makes the proxy fail its health checks, and from then on
	// answer each HTTP/1 request with `Connection: close`.
	failHealthChecks(ctx context.Context) error
	// connections returns how many clients are connected, including idle ones.
	connections(ctx context.Context) (int, error)
}

// readyEvery is how often the hooks of both shutdown managers check for the file
// that ends their wait.
const readyEvery = time.Second

// envoyGateway is the rule of Envoy Gateway's shutdown manager
// (internal/cmd/envoy/shutdown_manager.go, flags in internal/cmd/envoy.go).
//
// It fails Envoy's health checks, and then reads the sum of
// listener.*.downstream_cx_active every second, without the listeners for admin,
// readiness and statistics. The pod may end when at least minDrain has passed and
// at most exitAt connections are open, and in any case after timeout. While the
// statistic cannot be read, only timeout applies.
type envoyGateway struct {
	minDrain time.Duration // --min-drain-duration
	timeout  time.Duration // --drain-timeout
	every    time.Duration // constant in the source
	exitAt   int           // --exit-at-connections
}

func newEnvoyGateway() envoyGateway {
	return envoyGateway{minDrain: 10 * time.Second, timeout: 60 * time.Second, every: time.Second, exitAt: 0}
}

func (r envoyGateway) wait(ctx context.Context, p proxy) error {
	began := time.Now()
	_ = p.failHealthChecks(ctx) // the original logs and ignores this error too
	for {
		elapsed := time.Since(began)
		open, err := p.connections(ctx)
		if elapsed > r.timeout || elapsed > r.minDrain && err == nil && open <= r.exitAt {
			return seen(ctx, began)
		}
		if err := sleep(ctx, r.every); err != nil {
			return err
		}
	}
}

// contour is the rule of Contour's shutdown manager
// (cmd/contour/shutdownmanager.go).
//
// It waits drainDelay, fails Envoy's health checks, waits checkDelay, and reads
// envoy_http_downstream_cx_active of the HTTP and HTTPS listeners every
// checkInterval. The pod may end when at most minOpen connections are open. The
// only other limit is the pod's grace period.
type contour struct {
	drainDelay    time.Duration // --drain-delay
	checkDelay    time.Duration // --check-delay
	checkInterval time.Duration // --check-interval
	minOpen       int           // --min-open-connections
}

func newContour() contour {
	return contour{drainDelay: 0, checkDelay: 0, checkInterval: 5 * time.Second, minOpen: 0}
}

func (r contour) wait(ctx context.Context, p proxy) error {
	began := time.Now()
	if err := sleep(ctx, r.drainDelay); err != nil {
		return err
	}
	_ = p.failHealthChecks(ctx) // the original logs and ignores this error too
	if err := sleep(ctx, r.checkDelay); err != nil {
		return err
	}
	for {
		if open, err := p.connections(ctx); err == nil && open <= r.minOpen {
			return seen(ctx, began)
		}
		if err := sleep(ctx, r.checkInterval); err != nil {
			return err
		}
	}
}

// seen returns when the hook that began at began, and checks every readyEvery,
// notices what has just happened.
func seen(ctx context.Context, began time.Time) error {
	elapsed := time.Since(began)
	looks := (elapsed + readyEvery - 1) / readyEvery
	return sleep(ctx, looks*readyEvery-elapsed)
}

// knative is the rule of Knative's queue-proxy (knative.dev/pkg,
// network/handlers/drain.go; drainSleepDuration in knative.dev/serving,
// pkg/queue/sharedmain): the hook of the user's container returns when no request
// has arrived for the quiet period. Requests in flight do not count. The only other
// limit is the pod's grace period.
type knative struct{ quiet time.Duration }

func newKnative() knative { return knative{quiet: 30 * time.Second} }

// wait receives a value from arrived for each request, or for several that arrived
// close together.
func (r knative) wait(ctx context.Context, arrived <-chan struct{}) error {
	timer := time.NewTimer(r.quiet)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case <-arrived:
			timer.Reset(r.quiet)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
