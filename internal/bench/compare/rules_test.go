package compare

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fakeProxy has as many connections as open returns.
type fakeProxy struct {
	began  time.Time
	failed time.Duration // when its health checks were failed, plus 1 ns
	open   func(elapsed time.Duration) (int, error)
	reads  int
}

func (p *fakeProxy) failHealthChecks(context.Context) error {
	p.failed = time.Since(p.began) + 1
	return errors.New("refused")
}

func (p *fakeProxy) connections(context.Context) (int, error) {
	p.reads++
	return p.open(time.Since(p.began))
}

func openUntil(end time.Duration) func(time.Duration) (int, error) {
	return func(elapsed time.Duration) (int, error) {
		if elapsed < end {
			return 1, nil
		}
		return 0, nil
	}
}

func unreadable(time.Duration) (int, error) { return 0, errors.New("no stats found") }

func TestProxyRules(t *testing.T) {
	type rule interface {
		wait(ctx context.Context, p proxy) error
	}
	const grace = 100 * time.Second
	for _, test := range []struct {
		name  string
		rule  rule
		open  func(time.Duration) (int, error)
		takes time.Duration
		err   error
	}{
		// Fake time is exact, so "more than 10 s" is true at the check at 11 s.
		{"Envoy Gateway, nobody connected", newEnvoyGateway(), openUntil(0), 11 * time.Second, nil},
		{"Envoy Gateway, until 20.5 s", newEnvoyGateway(), openUntil(20500 * time.Millisecond), 21 * time.Second, nil},
		{"Envoy Gateway, an idle connection", newEnvoyGateway(), openUntil(time.Hour), 61 * time.Second, nil},
		{"Envoy Gateway, unreadable", newEnvoyGateway(), unreadable, 61 * time.Second, nil},
		{"Contour, nobody connected", newContour(), openUntil(0), 0, nil},
		{"Contour, until 20.5 s", newContour(), openUntil(20500 * time.Millisecond), 25 * time.Second, nil},
		{"Contour, an idle connection", newContour(), openUntil(time.Hour), grace, context.DeadlineExceeded},
		{"Contour, unreadable", newContour(), unreadable, grace, context.DeadlineExceeded},
		{"Contour, with its delays", contour{drainDelay: 2 * time.Second, checkDelay: 3 * time.Second, checkInterval: 500 * time.Millisecond, minOpen: 1}, openUntil(time.Hour), 5 * time.Second, nil},
		// The file is written at 5.5 s, and noticed at 6 s.
		{"Contour, looked for each second", contour{checkInterval: 500 * time.Millisecond}, openUntil(5500 * time.Millisecond), 6 * time.Second, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), grace)
				defer cancel()
				p := &fakeProxy{began: time.Now(), open: test.open}
				err := test.rule.wait(ctx, p)
				if took := time.Since(p.began); took != test.takes || !errors.Is(err, test.err) {
					t.Errorf("it took %v, %v; want %v, %v", took, err, test.takes, test.err)
				}
				if p.failed == 0 || p.reads == 0 {
					t.Errorf("health checks failed at %v, %d checks", p.failed, p.reads)
				}
			})
		})
	}
}

func TestKnativeRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		arrived := make(chan struct{}, 1)
		go func() {
			for range 3 {
				if sleep(ctx, 10*time.Second) == nil {
					arrived <- struct{}{}
				}
			}
		}()
		began := time.Now()
		if err := newKnative().wait(ctx, arrived); err != nil || time.Since(began) != time.Minute {
			t.Errorf("requests at 10, 20 and 30 s: it took %v, %v; want 1 min", time.Since(began), err)
		}
	})
}

func TestSleepEndsWithTheGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("it took %v, %v", time.Since(began), err)
		}
	})
}
