package server

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

func TestBeginByACall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(1, nil)
		called := time.Now()
		w := e.call(http.MethodPost, "/drain")
		if !time.Now().Equal(called) {
			t.Error("it did not answer at once")
		}
		wants(t, w, http.StatusAccepted)
		var s drain.Status
		read(t, w, &s)
		if s.Phase == drain.Serving || s.Ready || s.Cause != drain.CauseCall || s.Began == nil ||
			s.Deadline == nil || s.Deadline.Sub(*s.Began) != e.cfg.Budget() || s.BudgetLeft == nil {
			t.Errorf("the status is %s", w.Body)
		}
		// A second call, and a hook, join that drain.
		after(5 * time.Second)
		wants(t, e.call(http.MethodPost, "/drain"), http.StatusAccepted)
		hook := e.later(http.MethodGet, "/prestop")
		after(5 * time.Second)
		e.counter.set(0, nil)
		r := reportOf(t, <-hook)
		if r.Cause != drain.CauseCall || r.Seconds < 11 {
			t.Errorf("the hook got the report of another drain: %+v", r)
		}
	})
}

func TestTakeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		wantsError(t, e.call(http.MethodDelete, "/drain"), http.StatusConflict, "no drain")

		wants(t, e.call(http.MethodPost, "/drain"), http.StatusAccepted)
		after(time.Second)
		w := e.call(http.MethodDelete, "/drain")
		wants(t, w, http.StatusOK)
		var s drain.Status
		read(t, w, &s)
		if s.Phase != drain.Serving || !s.Ready || len(s.Registries) != 1 || s.Deadline != nil {
			t.Errorf("the status is %s", w.Body)
		}
		e.registry.mu.Lock()
		if e.registry.withdrawn {
			t.Error("answered before the instance was back in its registry")
		}
		e.registry.mu.Unlock()
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
		wantsError(t, e.call(http.MethodDelete, "/drain"), http.StatusConflict, "no drain")

		// A drain that has ended can be taken back as well.
		wants(t, e.call(http.MethodGet, "/prestop"), http.StatusOK)
		wants(t, e.call(http.MethodDelete, "/drain"), http.StatusOK)
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
	})
}

func TestTakeBackIsTooLateAfterASignal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.d.Stop()
		wantsError(t, e.call(http.MethodDelete, "/drain"), http.StatusConflict, "too late")
		synctest.Wait()
		wantsError(t, e.call(http.MethodDelete, "/drain"), http.StatusConflict, "too late")
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable)
	})
}

func TestTakeBackWaitsForNoBrokenRegistry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		wants(t, e.call(http.MethodPost, "/drain"), http.StatusAccepted)
		after(time.Second)
		e.registry.setBroken(errBroken)
		called := time.Now()
		w := e.call(http.MethodDelete, "/drain")
		wants(t, w, http.StatusOK)
		if took := time.Since(called); took != takeBackLimit {
			t.Errorf("answered after %v, want %v", took, takeBackLimit)
		}
		var s drain.Status
		read(t, w, &s)
		if !s.Ready || s.Registries[0].State != "restoring" || s.Registries[0].Error != errBroken.Error() {
			t.Errorf("the status is %s", w.Body)
		}
		e.registry.setBroken(nil)
		after(5 * time.Second)
		if s := e.status(); s.Registries[0].State != "in service" {
			t.Errorf("the registry that works again stands at %q", s.Registries[0].State)
		}
	})
}

func TestStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(4, nil)
		after(7 * time.Second)
		s := e.status()
		if s.Phase != drain.Serving || s.Seconds != 7 || !s.Ready || s.InFlight == nil || *s.InFlight != 4 ||
			s.Counters[0].Name != "count" || *s.Counters[0].InFlight != 4 || s.Registries[0].State != "in service" || s.Timeline != nil {
			t.Errorf("while serving: %+v", s)
		}
		e.counter.set(0, errBroken)
		if s := e.status(); s.InFlight != nil || s.Counters[0].InFlight != nil || s.Counters[0].Error != errBroken.Error() {
			t.Errorf("with a counter that cannot be read: %+v", s)
		}

		e.counter.set(4, nil)
		hook := e.later(http.MethodGet, "/prestop")
		for _, want := range []struct {
			at      time.Duration
			phase   drain.Phase
			since   float64
			waiting string
			state   string
		}{
			{500 * time.Millisecond, drain.Propagating, 0.5, "waiting for reg's clients to refresh (", "gone"},
			{2 * time.Second, drain.Propagating, 2, "waiting for endpoints (", "forgotten"},
			{5 * time.Second, drain.Draining, 2, "waiting for 4 requests: count 4; 20.0 s of budget left", "forgotten"},
		} {
			began := s.Began
			if began != nil {
				after(want.at - time.Since(*began))
			} else {
				after(want.at)
			}
			s = e.status()
			if s.Phase != want.phase || s.Seconds != want.since || !strings.HasPrefix(s.WaitingFor, want.waiting) ||
				s.Registries[0].State != want.state || *s.BudgetLeft != (e.cfg.Budget()-want.at).Seconds() {
				t.Errorf("at %v: %+v, want %+v", want.at, s, want)
			}
		}
		if len(s.Timeline) < 5 || s.Timeline[0].Text != "begun (hook); not ready" {
			t.Errorf("the timeline is %+v", s.Timeline)
		}
		e.counter.set(0, nil)
		<-hook
		if s := e.status(); s.Phase != drain.Drained || s.Ready {
			t.Errorf("after the drain: %+v", s)
		}
	})
}
