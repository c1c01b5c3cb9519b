package server

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

func TestPreStopBlocksUntilDrained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(2, nil)
		hook := e.later(http.MethodGet, "/prestop")
		after(10 * time.Second)
		if answered(hook) {
			t.Fatal("answered while requests were in flight")
		}
		e.counter.set(0, nil)
		w := <-hook
		wants(t, w, http.StatusOK)
		r := reportOf(t, w)
		if r.Outcome != drain.OutcomeDrained || r.Cause != drain.CauseHook || r.InFlight == nil || *r.InFlight != 0 {
			t.Errorf("the report is %s", w.Body)
		}
		if took := seconds(r.Seconds); took < 11*time.Second || took > 12*time.Second {
			t.Errorf("took %v, want 10 s of work and 1 s of quiet", took)
		}
	})
}

// Scripts read the report by these names.
func TestReportNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		w := e.call(http.MethodGet, "/prestop")
		var report map[string]any
		read(t, w, &report)
		for _, want := range []struct {
			of    string
			names string
		}{
			{"", "began budget_seconds cause counters in_flight outcome phases registries seconds timeline waits"},
			{"phases", "phase seconds"},
			{"waits", "for seconds"},
			{"counters", "arrived in_flight name"},
			{"registries", "gone_after_seconds name state withdrawn_after_seconds"},
			{"timeline", "event seconds"},
		} {
			object := report
			if want.of != "" {
				object = report[want.of].([]any)[0].(map[string]any)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(object)), " "); got != want.names {
				t.Errorf("%s holds %s, want %s", want.of, got, want.names)
			}
		}
		var phases []string
		for _, p := range reportOf(t, w).Phases {
			phases = append(phases, string(p.Phase))
		}
		if got := strings.Join(phases, " "); got != "withdrawing propagating draining" {
			t.Errorf("phases %s", got)
		}
	})
}

func TestPreStopOutcomes(t *testing.T) {
	for name, test := range map[string]struct {
		before    func(*edge)
		meanwhile func(*edge)
		code      int
		outcome   drain.Outcome
		says      string
	}{
		"the budget ends with work in flight": {
			func(e *edge) { e.counter.set(3, nil) }, nil,
			http.StatusGatewayTimeout, drain.OutcomeExpired, "waiting for 3 requests: count 3",
		},
		"the budget ends with a counter unreadable": {
			func(e *edge) { e.counter.set(0, errBroken) }, nil,
			http.StatusGatewayTimeout, drain.OutcomeExpired, "waiting for count to be readable",
		},
		"the budget ends with a registry that refuses": {
			func(e *edge) { e.registry.setBroken(errBroken) }, nil,
			http.StatusGatewayTimeout, drain.OutcomeExpired, "reg to accept the withdrawal",
		},
		"the instance is never found": {
			func(e *edge) { e.registry.setUnknown() }, nil,
			http.StatusFailedDependency, drain.OutcomeNotFound, "",
		},
		"SIGINT": {
			func(e *edge) { e.counter.set(3, nil) }, func(e *edge) { e.d.Stop(); e.d.Interrupt() },
			http.StatusGatewayTimeout, drain.OutcomeCutShort, "",
		},
		"taken back": {
			nil, func(e *edge) { wants(e.t, e.call(http.MethodDelete, "/drain"), http.StatusOK) },
			http.StatusConflict, drain.OutcomeTakenBack, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEdge(t)
				if test.before != nil {
					test.before(e)
				}
				began := time.Now()
				hook := e.later(http.MethodGet, "/prestop")
				synctest.Wait()
				if test.meanwhile != nil {
					test.meanwhile(e)
				}
				w := <-hook
				wants(t, w, test.code)
				r := reportOf(t, w)
				if r.Outcome != test.outcome || !strings.Contains(r.WaitingFor, test.says) {
					t.Errorf("the report says %s, %q; want %s, %q", r.Outcome, r.WaitingFor, test.outcome, test.says)
				}
				if took := time.Since(began); took > e.cfg.Budget() {
					t.Errorf("took %v, and the budget is %v", took, e.cfg.Budget())
				}
			})
		})
	}
}

func TestEveryCallerGetsTheSameReport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(1, nil)
		const callers = 200
		answers := make([]*httptest.ResponseRecorder, callers)
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				after(time.Duration(i) * 10 * time.Millisecond)
				answers[i] = e.call(http.MethodGet, "/prestop")
			})
		}
		after(5 * time.Second)
		e.counter.set(0, nil)
		all.Wait()
		late := e.call(http.MethodGet, "/prestop") // the same hook, delivered again
		wants(t, late, http.StatusOK)
		for i, w := range answers {
			wants(t, w, http.StatusOK)
			if w.Body.String() != late.Body.String() {
				t.Fatalf("caller %d got another report than the others:\n%s\n%s", i, w.Body, late.Body)
			}
		}
		if n := e.d.Totals(t.Context()).Drains[drain.OutcomeDrained].Count; n != 1 {
			t.Errorf("there were %d drains, want 1", n)
		}
	})
}

func TestCallerThatHangsUpDoesNotStopTheDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.counter.set(1, nil)
		ctx, hangUp := context.WithTimeout(t.Context(), time.Second)
		defer hangUp()
		left := e.callBy(ctx, http.MethodGet, "/prestop")
		if left.Code == http.StatusOK {
			t.Error("a caller who may only have closed his half was told 200 before the end")
		}
		if s := e.status(); s.Phase != drain.Propagating || s.Ready {
			t.Fatalf("after the caller has left the phase is %s", s.Phase)
		}
		e.counter.set(0, nil)
		w := e.call(http.MethodGet, "/prestop")
		wants(t, w, http.StatusOK)
		if took := seconds(reportOf(t, w).Seconds); took != 4*time.Second {
			t.Errorf("the drain that the first caller began took %v, want 4 s", took)
		}
	})
}

// A kubelet reads no more than 10 KiB of the answer.
func TestReportIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"long":             strings.Repeat("it is broken ", 1000),
		"HTML":             strings.Repeat("<a href='&'>", 1000),
		"quotes":           strings.Repeat(`"\`, 5000),
		"control bytes":    strings.Repeat("\x01\x7f", 5000),
		"not UTF-8":        strings.Repeat("\xff\xfe", 5000),
		"line separators":  strings.Repeat("\u2028", 5000),
		"wide letters":     strings.Repeat("日本", 5000),
		"lots of new line": strings.Repeat("\n", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEdge(t, func(c *drain.Config, _ *Options) {
					c.GracePeriod = time.Hour
					for _, more := range []string{"one", "two", "three", "four", "five"} {
						c.Counters = append(c.Counters, drain.NamedCounter{Name: more, Counter: c.Counters[0].Counter})
					}
					c.Registries = append(c.Registries, drain.NamedRegistry{Name: "second", Registry: c.Registries[0].Registry})
				})
				hook := e.later(http.MethodGet, "/prestop")
				for i := range 60 { // more events than a timeline holds
					broken := errors.New(text[i:])
					e.counter.set(0, broken)
					e.registry.setBroken(broken)
					after(time.Second)
					e.registry.setBroken(nil)
					after(2 * time.Second)
				}
				e.d.Interrupt()
				w := <-hook
				wants(t, w, http.StatusGatewayTimeout)
				if w.Body.Len() > 10<<10 {
					t.Errorf("the report has %d bytes, want at most 10 KiB", w.Body.Len())
				}
				r := reportOf(t, w)
				last := r.Timeline[len(r.Timeline)-1].Text
				if !strings.HasPrefix(r.Timeline[0].Text, "begun") || !strings.Contains(last, "cut_short") {
					t.Errorf("the timeline goes from %q to %q", r.Timeline[0].Text, last)
				}
			})
		})
	}
}

func TestPostStart(t *testing.T) {
	t.Run("while serving it changes nothing", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEdge(t)
			wants(t, e.call(http.MethodGet, "/poststart"), http.StatusOK)
			if s := e.status(); s.Phase != drain.Serving || !s.Ready {
				t.Errorf("the status is %+v", s)
			}
		})
	})
	t.Run("after the hook it takes the drain back", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEdge(t)
			wants(t, e.call(http.MethodGet, "/prestop"), http.StatusOK)
			called := time.Now()
			wants(t, e.call(http.MethodGet, "/poststart"), http.StatusOK)
			if !time.Now().Equal(called) {
				t.Error("it did not answer at once")
			}
			wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
			synctest.Wait()
			if s := e.status(); s.Phase != drain.Serving || s.LastDrain == nil || s.Registries[0].State != "in service" {
				t.Errorf("the status is %+v", s)
			}
		})
	})
	t.Run("a hook that is waited for is another container's", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEdge(t)
			hook := e.later(http.MethodGet, "/prestop")
			synctest.Wait()
			wants(t, e.call(http.MethodGet, "/poststart"), http.StatusOK)
			wants(t, <-hook, http.StatusOK)
		})
	})
	t.Run("a drain that somebody asked for is left to them", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEdge(t)
			wants(t, e.call(http.MethodPost, "/drain"), http.StatusAccepted)
			wants(t, e.call(http.MethodGet, "/poststart"), http.StatusOK)
			wants(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable)
		})
	})
	t.Run("after a signal the pod is being deleted", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEdge(t)
			wants(t, e.call(http.MethodGet, "/prestop"), http.StatusOK)
			e.d.Stop()
			wants(t, e.call(http.MethodGet, "/poststart"), http.StatusOK)
			wants(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable)
		})
	})
	t.Run("it answers even when the registry hangs", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			e := newEdge(t)
			wants(t, e.call(http.MethodGet, "/prestop"), http.StatusOK)
			e.registry.mu.Lock()
			answer := e.later(http.MethodGet, "/poststart")
			wants(t, <-answer, http.StatusOK)
			e.registry.mu.Unlock()
		})
	})
}

// The report is valid JSON whatever the errors contain, and it includes their
// text.
func TestReportTellsErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		e.registry.setBroken(errors.New("503: <b>no \xffleader</b>"))
		w := e.call(http.MethodGet, "/prestop")
		wants(t, w, http.StatusGatewayTimeout)
		r := reportOf(t, w)
		if got := r.Registries[0]; got.State != "withdrawing" || got.Failures < 10 || got.Error != "503: <b>no ?leader</b>" {
			text, _ := json.Marshal(got)
			t.Errorf("the registry stands at %s", text)
		}
	})
}
