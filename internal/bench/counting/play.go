package counting

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"lastcall/internal/test/sidecar"
)

// Result is the result of a run.
type Result struct {
	Run
	Began    time.Time           `json:"began"`
	HookAt   time.Time           `json:"hook_at"`
	LastWork time.Time           `json:"last_work,omitzero"`
	Answers  int                 `json:"answers"` // before the hook
	InFlight []Request           `json:"in_flight,omitempty"`
	Verdicts map[string]*Verdict `json:"verdicts"`
	// Broken is why the run is invalid; empty if it is valid.
	Broken string `json:"broken,omitempty"`
}

const (
	// settle is the time that a sidecar gets before the first request of a run.
	settle = 1500 * time.Millisecond
	// during is how long after the hook the sidecars' status is read.
	during = 500 * time.Millisecond
)

// play makes a run.
func (w *world) play(t *testing.T, r *Run, s slot, result *Result) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	port := w.app(t, r, s)
	at := w.target(r, port)
	judges := make(map[string]*sidecar.Sidecar)
	for name, env := range sidecars() {
		judges[name] = sidecar.Start(t, w.program, append([]string{
			fmt.Sprintf("LASTCALL_APP_PORT=%d", port),
			fmt.Sprintf("LASTCALL_GRACE_PERIOD=%v", gracePeriod),
			"LASTCALL_POD_IP=" + podAddress,
		}, env...)...)
	}
	result.Began = time.Now()
	done := &work{}
	b := w.behavior(t, r, s, at, done)
	defer b.close()
	fail := func(what string, err error) {
		result.Broken = fmt.Sprintf("%s: %v", what, err)
		t.Errorf("%s: %s", r, result.Broken)
	}

	if err := sleep(ctx, settle); err != nil {
		fail("settling", err)
		return
	}
	if err := b.before(ctx, r, done); err != nil {
		fail("before the hook", err)
		return
	}
	began, finished := make(chan struct{}), make(chan error, 1)
	go func() { finished <- b.measured(ctx, r.Request, func() { close(began) }) }()
	select {
	case <-began:
	case err := <-finished:
		finished <- err // it is read again below
		select {
		case <-began: // there is no measured request
		default:
			fail("the measured request has not begun", err)
			return
		}
	}
	if err := sleep(ctx, r.Hook); err != nil {
		fail("before the hook", err)
		return
	}

	w.drain(ctx, port, judges, done, result)

	if err := <-finished; err != nil {
		fail("the measured request", err)
		return
	}
	if err := errors.Join(done.failed()...); err != nil {
		fail("requests", err)
		return
	}
	for _, v := range result.Verdicts {
		if v.Outcome != outcomeDrained && v.Outcome != outcomeWaiting {
			fail("a hook", fmt.Errorf("returned %s", v.Outcome))
			return
		}
	}
	result.Broken = ""
}

// app returns the port of a run's app. The app of a pattern is started here.
func (w *world) app(t testing.TB, r *Run, s slot) int {
	t.Helper()
	if r.Server != patternServer {
		if r.TLS {
			return s.secured
		}
		return s.plain
	}
	p := patternOf(t, r)
	plain, port := listen(t, 0, nil)
	secured := plain
	if r.TLS {
		secured = tls.NewListener(plain, serverTLS(w.pair, p.http2))
	}
	if p.serve != nil {
		serveConnections(t, secured, p.serve)
	} else {
		serveHTTP(t, secured, p.http2)
	}
	return port
}

func patternOf(t testing.TB, r *Run) pattern {
	t.Helper()
	all := patterns()
	i := slices.IndexFunc(all, func(p pattern) bool { return p.name == r.Client && p.tls == r.TLS })
	if i < 0 {
		t.Fatalf("there is no pattern %s", r.Client)
	}
	return all[i]
}

func (w *world) behavior(t testing.TB, r *Run, s slot, at *target, done *work) *behavior {
	t.Helper()
	if r.Server == patternServer {
		p := patternOf(t, r)
		return p.client(t, at, done)
	}
	return newBehavior(t, r, w, at, s.gateway, done)
}

// before makes the requests before the measured one.
func (b *behavior) before(ctx context.Context, r *Run, done *work) error {
	if b.prepare != nil {
		if err := b.prepare(ctx); err != nil {
			return err
		}
	}
	if r.History {
		return b.live(ctx, done, r.Request)
	}
	return b.youth(ctx)
}

// drain calls the hooks, and waits until each judge has said that the drain is
// over, or is needlessly late.
func (w *world) drain(ctx context.Context, port int, judges map[string]*sidecar.Sidecar, done *work, result *Result) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result.Verdicts = make(map[string]*Verdict)
	for _, name := range Judges() {
		result.Verdicts[name] = &Verdict{Outcome: outcomeWaiting}
		if s := judges[name]; s != nil {
			result.Verdicts[name].Before = status(ctx, s)
		}
	}
	result.HookAt = time.Now()
	result.Answers = done.answered()
	result.InFlight = done.open(result.HookAt)
	hooks := map[string]<-chan returned{Connections: w.observer.hook(ctx, port)}
	for name, s := range judges {
		hooks[name] = callHook(ctx, s)
	}
	asked := time.NewTimer(during)
	defer asked.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for len(hooks) > 0 {
		select {
		case <-asked.C:
			for name, s := range judges {
				result.Verdicts[name].During = status(ctx, s)
			}
		case <-look.C:
			for name, hook := range hooks {
				select {
				case r := <-hook:
					result.Verdicts[name].hear(r, result.HookAt, done)
					delete(hooks, name)
				default:
				}
			}
		case <-ctx.Done():
			return
		}
		if over, ok := needless(result.HookAt, done); ok && time.Now().After(over) {
			for name := range hooks {
				result.Verdicts[name].Needless = true
			}
			hooks = nil
		}
	}
	// If all judges returned early, the work is not over yet.
	for ctx.Err() == nil {
		if _, ok := needless(result.HookAt, done); ok {
			break
		}
		_ = sleep(ctx, 50*time.Millisecond) // an error ends the loop
	}
	result.LastWork = done.lastEnd()
	for name, v := range result.Verdicts {
		if s := judges[name]; s != nil {
			v.After = status(ctx, s)
			if v.Early() || v.Needless {
				v.Log = s.Log()
			}
		}
		if !w.everything && !v.Early() && !v.Needless {
			v.Before, v.During = nil, nil
		}
	}
}

// needless returns when a drain becomes needless. known is false while a request is
// in flight.
func needless(hook time.Time, done *work) (at time.Time, known bool) {
	last := done.lastEnd()
	if last.IsZero() && len(done.snapshot()) > 0 {
		return at, false // something is in flight
	}
	if free := hook.Add(endpointsWait); free.After(last) {
		last = free
	}
	return last.Add(needlessAfter), true
}

// hear records when and how a judge's hook returned.
func (v *Verdict) hear(r returned, hook time.Time, done *work) {
	v.Seconds, v.Outcome = r.at.Sub(hook).Seconds(), r.outcome
	if r.outcome != outcomeDrained {
		return
	}
	for _, open := range done.open(r.at) {
		v.Open = append(v.Open, open.What)
	}
}
