package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

func TestBudgetOfACall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(1, nil)
		status := func(query string) (s drain.Status) {
			t.Helper()
			w := e.call(http.MethodPost, "/drain"+query)
			wants(t, w, http.StatusAccepted)
			read(t, w, &s)
			return s
		}
		if s := status("?budget=10m"); s.Deadline == nil || s.Deadline.Sub(*s.Began) != 10*time.Minute {
			t.Errorf("the deadline is %v", s.Deadline)
		}
		for _, shorter := range []string{"", "?budget=1m"} {
			if s := status(shorter); s.Deadline == nil || s.Deadline.Sub(*s.Began) != 10*time.Minute {
				t.Errorf("after %q the deadline is %v", shorter, s.Deadline)
			}
		}
		if s := status("?budget=none"); s.Deadline != nil || s.BudgetLeft != nil || !strings.Contains(s.WaitingFor, "for as long as it takes") {
			t.Errorf("the deadline is %v, waiting for %q", s.Deadline, s.WaitingFor)
		}
		after(time.Hour)
		if s := status(""); s.Phase != drain.Draining || s.Deadline != nil {
			t.Errorf("after an hour: %s, deadline %v", s.Phase, s.Deadline)
		}
		// The kubelet's grace period limits it all the same.
		called := time.Now()
		hook := e.later(http.MethodGet, "/prestop")
		w := <-hook
		if took := time.Since(called); took != e.cfg.Budget() {
			t.Errorf("the hook took %v", took)
		}
		wants(t, w, http.StatusGatewayTimeout)
	})
}

func TestBadBudgets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		for query, want := range map[string]string{
			"budget=":                 "must be a duration above 0",
			"budget=10":               "must be a duration above 0",
			"budget=0s":               "must be a duration above 0",
			"budget=-1m":              "must be a duration above 0",
			"budget=None":             "must be a duration above 0",
			"budget=99999999999999h":  "must be a duration above 0",
			"budget=10m&budget=20m":   "given twice",
			"buget=10m":               "no parameter",
			"budget=%zz":              "cannot be read",
			"budget=1m;budget=2m":     "cannot be read",
			"budget=10m&force=true":   "no parameter",
			"budget=" + long("1", 99): "must be a duration above 0",
		} {
			wantsError(t, e.call(http.MethodPost, "/drain?"+query), http.StatusBadRequest, want)
		}
		if e.d.Leaving() {
			t.Error("a bad call has begun a drain")
		}
	})
}

func long(of string, n int) string { return strings.Repeat(of, n) }

// A gate in the cluster first drains a pod and then has it deleted. The pod's
// hook has nothing left to wait for.
func TestHookOfADrainedPod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		wants(t, e.call(http.MethodPost, "/drain?budget=none"), http.StatusAccepted)
		after(time.Hour)
		called := time.Now()
		w := <-e.later(http.MethodGet, "/prestop")
		wants(t, w, http.StatusOK)
		if took := time.Since(called); took > 50*time.Millisecond {
			t.Errorf("the hook of a drained pod took %v", took)
		}
		if r := reportOf(t, w); r.Cause != drain.CauseCall || r.Budget != nil {
			t.Errorf("the report is another drain's: %+v", r)
		}
	})
}
