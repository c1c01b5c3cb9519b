package drain

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newTasks returns a registration and an acceptControl that nobody works on.
func newTasks(r Registry, control AcceptStopper) (*registration, *acceptControl) {
	d := New(Config{GracePeriod: time.Minute, Registries: []NamedRegistry{{Name: "r", Registry: r, ClientRefresh: time.Second}}})
	d.addControl("proxy", "takes no new work", control)
	return d.registrations[0], d.controls[0]
}

// expect takes the next call, which is to be op, and ends it.
func expect(t *testing.T, k task, op string, now time.Time, a answer, err error) {
	t.Helper()
	c, wait := k.nextLocked(now)
	if c == nil || c.op != op {
		t.Fatalf("next is %+v, or a wait of %v, want %q", c, wait, op)
	}
	k.doneLocked(c, a, err, now)
}

// waits holds that nothing is to be called for a time within the two.
func expectWait(t *testing.T, k task, now time.Time, least, most time.Duration) {
	t.Helper()
	if c, wait := k.nextLocked(now); c != nil || wait < least || wait > most {
		t.Fatalf("next is %+v, or a wait of %v, want one from %v to %v", c, wait, least, most)
	}
}

func TestARegistrationsCalls(t *testing.T) {
	r, _ := newTasks(wordy{}, fakeStopper{})
	now := time.Now()
	expectWait(t, r, now, forever, forever) // in service, with nothing to look up

	r.setTargetLocked(outOfService, now.Add(time.Minute))
	expect(t, r, opWithdraw, now, answer{}, errBroken)
	expectWait(t, r, now, 80*ms, 100*ms)
	now = now.Add(100 * ms)
	expect(t, r, opWithdraw, now, answer{}, nil)
	expect(t, r, opAsk, now, answer{}, nil)
	expectWait(t, r, now, 40*ms, 50*ms)
	now = now.Add(50 * ms)
	expect(t, r, opAsk, now, answer{yes: true}, nil)
	expectWait(t, r, now, watchEvery, watchEvery)
	if got := r.forgottenAtLocked(); !got.Equal(now.Add(time.Second)) {
		t.Errorf("forgotten at %v", got)
	}
	now = now.Add(watchEvery)
	expect(t, r, opAsk, now, answer{}, nil) // listed again
	expect(t, r, opWithdraw, now, answer{}, nil)
	expectWait(t, r, now.Add(time.Minute), forever, forever) // the budget has ended

	r.setTargetLocked(inService, time.Time{})
	expect(t, r, opRestore, now, answer{}, errBroken)
	now = now.Add(100 * ms)
	expect(t, r, opRestore, now, answer{}, nil)
	if !isClosed(r.settled) {
		t.Error("not settled")
	}
	expect(t, r, opAsk, now, answer{yes: true}, nil)
	expectWait(t, r, now, watchEvery, watchEvery)
	now = now.Add(restoreAgainEvery)
	expect(t, r, opAsk, now, answer{yes: true}, nil)
	expect(t, r, opRestore, now, answer{}, nil)
	expect(t, r, opAsk, now, answer{}, nil)
	expectWait(t, r, now, forever, forever)

	r.setTargetLocked(deregistered, now.Add(time.Minute))
	expect(t, r, opAppGone, now, answer{}, nil)
	expectWait(t, r, now, appGoneEvery, appGoneEvery)
	now = now.Add(appGoneEvery)
	expect(t, r, opAppGone, now, answer{yes: true}, nil)
	expect(t, r, opDeregister, now, answer{}, errBroken)
	now = now.Add(100 * ms)
	expect(t, r, opAppGone, now, answer{yes: true}, nil) // it may have come back
	expect(t, r, opDeregister, now, answer{}, nil)
	expectWait(t, r, now, forever, forever)
}

// A Withdraw that had no good answer may take effect after the Restore.
func TestARegistrationIsAskedAsLongAsAWithdrawMayTakeEffect(t *testing.T) {
	r, _ := newTasks(wordy{}, fakeStopper{})
	now := time.Now()
	r.setTargetLocked(outOfService, now.Add(time.Minute))
	expect(t, r, opWithdraw, now, answer{}, errBroken)
	now = now.Add(100 * ms)
	expect(t, r, opWithdraw, now, answer{}, nil) // says nothing of the one before
	r.setTargetLocked(inService, time.Time{})
	expect(t, r, opRestore, now, answer{}, nil)
	for began := now; now.Sub(began) < 2*callLimit-100*ms; now = now.Add(watchEvery) {
		expect(t, r, opAsk, now, answer{}, nil)
	}
	expect(t, r, opAsk, now, answer{}, nil)
	expectWait(t, r, now, forever, forever)
}

func TestAnAcceptControlsCalls(t *testing.T) {
	_, a := newTasks(wordy{}, fakeProxy{})
	now := time.Now()
	expect(t, a, "", now, answer{}, errBroken) // what an earlier process may have left
	expectWait(t, a, now, 80*ms, 100*ms)
	a.setLocked(true, now.Add(time.Minute))
	expect(t, a, "", now, answer{}, errBroken)
	if a.state != uncertain {
		t.Errorf("after a call that failed it is %d", a.state)
	}
	a.setLocked(false, time.Time{})
	expect(t, a, "", now, answer{}, nil)
	expectWait(t, a, now, 2*callLimit, 2*callLimit) // the one that failed may take effect yet
	now = now.Add(2 * callLimit)
	expect(t, a, "", now, answer{}, nil)
	expectWait(t, a, now, forever, forever)
	a.setLocked(true, now.Add(time.Minute))
	expectWait(t, a, now.Add(time.Minute), forever, forever) // no use any more
	expect(t, a, "", now, answer{}, nil)
	expectWait(t, a, now, forever, forever)
}

func TestAProxyThatCannotBeToldToAccept(t *testing.T) {
	_, a := newTasks(wordy{}, fakeStopper{})
	now := time.Now()
	expectWait(t, a, now, forever, forever)
	for range 2 {
		a.setLocked(true, now.Add(time.Minute))
		expect(t, a, "", now, answer{}, nil)
		a.setLocked(false, time.Time{})
		expectWait(t, a, now, forever, forever)
	}
}

// script is a task that makes one kind of call and remembers how it ended.
type script struct {
	call call
	ends []error
}

func (s *script) nextLocked(time.Time) (*call, time.Duration) {
	if len(s.ends) > 0 {
		return nil, forever
	}
	return &s.call, 0
}

func (s *script) doneLocked(_ *call, _ answer, err error, _ time.Time) { s.ends = append(s.ends, err) }

// A call whose target has changed does not count, whatever comes of it.
func TestAWorkerForgetsTheCallsOfAnEarlierTarget(t *testing.T) {
	for name, test := range map[string]struct {
		mustFinish bool
		retargets  int
		calls      int64
	}{
		"no other target":          {false, 0, 1},
		"another, it is cancelled": {false, 1, 2},
		"another, it must finish":  {true, 1, 2},
		"back to the one before":   {false, 2, 2},
		"back, and it must finish": {true, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var calls atomic.Int64
				s := &script{call: call{op: "x", limit: time.Second, mustFinish: test.mustFinish, do: func(ctx context.Context) (answer, error) {
					calls.Add(1)
					<-ctx.Done()
					return answer{}, ctx.Err()
				}}}
				w := newWorker(&mu, s)
				ctx, cancel := context.WithCancel(t.Context())
				began := time.Now()
				go w.run(ctx)
				after(100 * ms)
				mu.Lock()
				for range test.retargets {
					w.retargetLocked()
				}
				mu.Unlock()
				synctest.Wait()
				if again := calls.Load() == 2; again == (test.mustFinish || test.retargets == 0) {
					t.Errorf("%d calls after %v", calls.Load(), time.Since(began))
				}
				after(5 * time.Second)
				cancel()
				synctest.Wait()
				if calls.Load() != test.calls || len(s.ends) != 1 || !errors.Is(s.ends[0], context.DeadlineExceeded) || w.calls["x"].Failures != 1 {
					t.Errorf("%d calls, of which counted %v, %+v", calls.Load(), s.ends, *w.calls["x"])
				}
			})
		})
	}
}

func TestAWorkersCallThatPanicsHasFailed(t *testing.T) {
	var mu sync.Mutex
	s := &script{call: call{whom: "x", limit: time.Second, do: func(context.Context) (answer, error) { panic("broken on purpose") }}}
	newWorker(&mu, s).step(t.Context())
	if len(s.ends) != 1 || s.ends[0] == nil {
		t.Errorf("%v", s.ends)
	}
}
