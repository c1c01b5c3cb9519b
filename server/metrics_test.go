package server

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"lastcall/drain"
)

// scrape reads the metrics as Prometheus does.
func (e *edge) scrape() map[string]*dto.MetricFamily {
	e.t.Helper()
	families, err := e.tryScrape()
	if err != nil {
		e.t.Fatal(err)
	}
	return families
}

func (e *edge) tryScrape() (map[string]*dto.MetricFamily, error) {
	w := e.call(http.MethodGet, "/metrics", "Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "Accept-Encoding", "gzip")
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "text/plain; version=0.0.4; charset=utf-8" {
		return nil, fmt.Errorf("answers %d as %q", w.Code, got)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(w.Body)
}

// value returns the value of the series with the given label values. ok is
// false if there is no such series.
func value(f *dto.MetricFamily, labels ...string) (v float64, ok bool) {
	for _, m := range f.GetMetric() {
		var has []string
		for _, l := range m.GetLabel() {
			has = append(has, l.GetValue())
		}
		if !slices.Equal(has, labels) {
			continue
		}
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			return m.GetCounter().GetValue(), true
		case dto.MetricType_SUMMARY:
			return m.GetSummary().GetSampleSum(), true
		default:
			return m.GetGauge().GetValue(), true
		}
	}
	return 0, false
}

func TestMetricsTellOfADrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		holds := func(name string, want float64, labels ...string) {
			t.Helper()
			if got, ok := value(e.scrape()[name], labels...); !ok || math.Abs(got-want) > 0.001 { // reports have milliseconds
				t.Errorf("%s%q is %v (there: %v), want %v", name, labels, got, ok, want)
			}
		}
		e.counter.set(4, nil)
		after(10 * time.Second)
		holds("lastcall_build_info", 1, "v1.2.3")
		holds("lastcall_drain_budget_seconds", 25)
		holds("lastcall_drain_budget_needed_seconds", 4) // endpoints 3 s + quiet 1 s
		holds("lastcall_phase", 1, "serving")
		holds("lastcall_phase", 0, "draining")
		holds("lastcall_phase_seconds_total", 10, "serving")
		holds("lastcall_in_flight", 4, "count")
		holds("lastcall_counter_up", 1, "count")

		e.counter.set(0, errBroken)
		holds("lastcall_counter_up", 0, "count")
		holds("lastcall_counter_errors_total", 2, "count") // one for each scrape
		if v, ok := value(e.scrape()["lastcall_in_flight"], "count"); ok {
			t.Errorf("a counter that cannot be read shows as %v", v)
		}

		e.counter.set(4, nil)
		e.registry.setBroken(errBroken)
		hook := e.later(http.MethodGet, "/prestop")
		after(2 * time.Second)
		e.registry.setBroken(nil)
		after(8 * time.Second)
		holds("lastcall_phase", 1, "draining")
		holds("lastcall_phase", 0, "serving")
		holds("lastcall_in_flight", 4, "count")
		calls, _ := value(e.scrape()["lastcall_registry_calls_total"], "withdraw", "reg")
		failures, _ := value(e.scrape()["lastcall_registry_call_failures_total"], "withdraw", "reg")
		if failures < 3 || calls != failures+1 {
			t.Errorf("%v calls to the registry, of which %v failed; all but the last did", calls, failures)
		}

		e.counter.set(0, nil)
		took := reportOf(t, <-hook).Seconds
		holds("lastcall_drain_duration_seconds", took, "drained")
		holds("lastcall_drain_duration_seconds", 0, "expired")
		holds("lastcall_phase", 1, "drained")
		after(10 * time.Second)
		holds("lastcall_phase_seconds_total", 10, "drained")
		holds("lastcall_phase_seconds_total", 10, "serving")
		total := 0.0
		for _, m := range e.scrape()["lastcall_phase_seconds_total"].GetMetric() {
			total += m.GetCounter().GetValue()
		}
		if math.Abs(total-(10+took+10)) > 0.001 {
			t.Errorf("the phases' times add up to %v, want %v", total, 10+took+10)
		}
	})
}

// learner is a counter that has learned something of the app.
type learner struct{ counter }

func (*learner) Learn(ctx context.Context) { <-ctx.Done() }

func (*learner) Learned() drain.Learned {
	return drain.Learned{Text: "it has learned", Answers: 3, Longest: 2 * time.Second, Silence: 10 * time.Second}
}

// appPort is an app that listens on port 8080, until it does not.
type appPort struct {
	mu     sync.Mutex
	listen uint64 // the listener; 0: nobody listens
}

func (a *appPort) set(listen uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listen = listen
}

func (*appPort) Ports() []int                              { return []int{8080} }
func (*appPort) OtherPorts(context.Context) ([]int, error) { return []int{9090}, nil }

func (a *appPort) Listeners(context.Context) (map[int][]uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listen == 0 {
		return nil, nil
	}
	return map[int][]uint64{8080: {a.listen}}, nil
}

func TestMetricsTellOfTheApp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &appPort{}
		e := newEdge(t, func(c *drain.Config, _ *Options) { c.App = a })
		holds := func(listening, silent, starts float64) {
			t.Helper()
			for name, want := range map[string]float64{"listening": listening, "port_silent": silent, "starts_total": starts} {
				if got, ok := value(e.scrape()["lastcall_app_"+name], "8080"); !ok || got != want {
					t.Errorf("lastcall_app_%s is %v (there: %v), want %v", name, got, ok, want)
				}
			}
		}
		after(1100 * time.Millisecond) // from here on, no step is at the moment of a check
		holds(0, 0, 0)
		after(2 * time.Minute)
		holds(0, 1, 0)
		if got := e.status().Warnings; len(got) != 1 || !strings.Contains(got[0], "port 8080") {
			t.Errorf("the status warns of %q", got)
		}
		a.set(1)
		after(time.Second)
		holds(1, 0, 1)
		a.set(2)
		after(time.Second)
		holds(1, 0, 2)
		a.set(0)
		after(time.Second)
		holds(0, 0, 2)
	})
}

// described is one line of the table in docs/metrics.md.
var described = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (gauge|counter|summary) \\| (.*?) ?\\| (.*) \\|$")

var inBackticks = regexp.MustCompile("`([a-z_]+)`")

func names(text string) (found []string) {
	for _, m := range inBackticks.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return found
}

// Every exposed metric, in whatever state, is documented, and the other way
// round.
func TestMetricsAreAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	type metric struct{ kind, labels, says string }
	docs := map[string]metric{}
	for _, m := range described.FindAllStringSubmatch(string(text), -1) {
		docs[m[1]] = metric{m[2], strings.Join(names(m[3]), " "), m[4]}
	}
	seen := map[string]bool{}
	bubble(t, func(t *testing.T) {
		e := newEdge(t, func(c *drain.Config, _ *Options) {
			c.Counters = append(c.Counters, drain.NamedCounter{Name: "learns", Counter: &learner{}})
			c.App = &appPort{}
			c.ReadyWhenListed, c.ListedWithin = true, time.Minute
		})
		check := func() {
			t.Helper()
			for name, f := range e.scrape() {
				seen[name] = true
				doc, ok := docs[name]
				if !ok {
					t.Errorf("docs/metrics.md does not tell of %s", name)
					continue
				}
				if kind := strings.ToLower(f.GetType().String()); kind != doc.kind {
					t.Errorf("%s is a %s, documented as %s", name, kind, doc.kind)
				}
				if f.GetHelp() == "" {
					t.Errorf("%s has no help text", name)
				}
				for _, m := range f.GetMetric() {
					var labels []string
					for _, l := range m.GetLabel() {
						labels = append(labels, l.GetName())
						if enumerated := l.GetName() == "phase" || l.GetName() == "outcome" || l.GetName() == "call"; enumerated &&
							!strings.Contains(string(text), "`"+l.GetValue()+"`") {
							t.Errorf("%s has %s=%q, which docs/metrics.md does not tell of", name, l.GetName(), l.GetValue())
						}
					}
					if got := strings.Join(labels, " "); got != doc.labels {
						t.Errorf("%s has the labels %s, documented are %s", name, got, doc.labels)
					}
				}
			}
		}
		check()
		e.registry.setBroken(errBroken)
		e.counter.set(1, errBroken)
		wants(t, e.call(http.MethodPost, "/drain"), http.StatusAccepted)
		after(time.Second)
		check()
		e.registry.setBroken(nil)
		e.counter.set(0, nil)
		after(10 * time.Second)
		check()
		wants(t, e.call(http.MethodDelete, "/drain"), http.StatusOK)
		after(time.Second)
		check()
		e.d.Stop()
		after(e.cfg.GracePeriod) // the instance is deregistered
		check()
	})
	for name := range docs {
		if !seen[name] {
			t.Errorf("docs/metrics.md tells of %s, which was never seen", name)
		}
	}
	for _, p := range drain.Phases() {
		if !strings.Contains(string(text), "`"+string(p)+"`") {
			t.Errorf("docs/metrics.md does not tell of the phase %s", p)
		}
	}
}

// Two scrapes at the same time are each complete, while all values change.
func TestScrapesSideBySide(t *testing.T) {
	e := newEdge(t, func(c *drain.Config, _ *Options) { c.EndpointsWait, c.Quiet, c.Registries[0].ClientRefresh = 0, 0, 0 })
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 25 {
				families, err := e.tryScrape()
				if n := len(families["lastcall_phase"].GetMetric()); err != nil || n != len(drain.Phases()) {
					t.Errorf("%d phases, want %d; %v", n, len(drain.Phases()), err)
				}
			}
		}()
	}
	for range 25 {
		e.call(http.MethodGet, "/prestop")
		e.call(http.MethodDelete, "/drain")
	}
	for range 4 {
		<-done
	}
}
