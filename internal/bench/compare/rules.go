package compare

import (
	"context"
	"time"
)

// What follows are the rules by which others decide when a pod may go, read
// from their sources of mid-2026 and run with their defaults. All of them end
// early when ctx, the pod's grace period, does.

// sleep is what a shell hook does.
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

// A proxy is an Envoy that is to be drained.
type proxy interface {
	// failHealthChecks makes it fail its health checks, and answer each
	// HTTP/1 request with `Connection: close` from then on.
	failHealthChecks(ctx context.Context) error
	// connections tells how many clients are connected, idle ones too.
	connections(ctx context.Context) (int, error)
}

// readyEvery is how often the hooks of both shutdown managers look for the
// file that says that their wait is over.
const readyEvery = time.Second

// envoyGateway is the rule of Envoy Gateway's shutdown manager
// (internal/cmd/envoy/shutdown_manager.go, flags in internal/cmd/envoy.go).
//
// It fails Envoy's health checks, and then reads the sum of
// listener.*.downstream_cx_active every second, without the listeners for
// admin, readiness and statistics. The pod may go when at least minDrain has
// passed and no more than exitAt connections are open, and in any case after
// timeout. A statistic that cannot be read counts as neither.
type envoyGateway struct {
	minDrain time.Duration // --min-drain-duration
	timeout  time.Duration // --drain-timeout
	every    time.Duration // in the source
	exitAt   int           // --exit-at-connections
}

func newEnvoyGateway() envoyGateway {
	return envoyGateway{minDrain: 10 * time.Second, timeout: 60 * time.Second, every: time.Second, exitAt: 0}
}

func (r envoyGateway) wait(ctx context.Context, p proxy) error {
	began := time.Now()
	_ = p.failHealthChecks(ctx) // logged and passed over, there too
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
// checkInterval. The pod may go when no more than minOpen connections are open.
// There is no other bound than the pod's grace period.
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
	_ = p.failHealthChecks(ctx) // logged and passed over, there too
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

// seen returns when the hook that began at began, and looks every readyEvery,
// sees what has just happened.
func seen(ctx context.Context, began time.Time) error {
	elapsed := time.Since(began)
	looks := (elapsed + readyEvery - 1) / readyEvery
	return sleep(ctx, looks*readyEvery-elapsed)
}

// knative is the rule of Knative's queue-proxy (knative.dev/pkg,
// network/handlers/drain.go; drainSleepDuration in knative.dev/serving,
// pkg/queue/sharedmain): the hook of the user's container returns when no
// request has arrived for the quiet period. What is still in flight does not
// count. There is no other bound than the pod's grace period.
type knative struct{ quiet time.Duration }

func newKnative() knative { return knative{quiet: 30 * time.Second} }

// wait takes a value from arrived for each request, or for several that came
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
