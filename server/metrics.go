package server

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"lastcall/drain"
)

// The metrics. Their names are stable; docs/metrics.md tells of each.
var (
	phaseDesc = prometheus.NewDesc("lastcall_phase",
		"1 for the phase that the pod is in, 0 for the others.", []string{"phase"}, nil)
	phaseSecondsDesc = prometheus.NewDesc("lastcall_phase_seconds_total",
		"Time spent in each phase.", []string{"phase"}, nil)
	inFlightDesc = prometheus.NewDesc("lastcall_in_flight",
		"Work in flight, by counter. Absent while the counter cannot be read.", []string{"counter"}, nil)
	counterUpDesc = prometheus.NewDesc("lastcall_counter_up",
		"1 when the counter could be read, 0 when not.", []string{"counter"}, nil)
	callsDesc = prometheus.NewDesc("lastcall_registry_calls_total",
		"Calls to each registry.", []string{"registry", "call"}, nil)
	failuresDesc = prometheus.NewDesc("lastcall_registry_call_failures_total",
		"Calls to each registry that failed.", []string{"registry", "call"}, nil)
	drainsDesc = prometheus.NewDesc("lastcall_drain_duration_seconds",
		"How long drains took, by outcome.", []string{"outcome"}, nil)
	buildDesc = prometheus.NewDesc("lastcall_build_info",
		"1, labelled by the version of lastcall.", []string{"version"}, nil)
)

// collector turns the drainer's totals into metrics, for one scrape.
type collector struct {
	ctx     context.Context //nolint:containedctx // a Collector's calls take none, and this one lives for one scrape
	drainer *drain.Drainer
	version string
}

// Describe sends nothing: which metrics there are depends on the counters and
// registries.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, label string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, label)
	}
	count := func(desc *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, v, labels...)
	}
	t := c.drainer.Totals(c.ctx)
	gauge(buildDesc, 1, c.version)
	for _, p := range drain.Phases() {
		is := 0.0
		if p == t.Phase {
			is = 1
		}
		gauge(phaseDesc, is, string(p))
		count(phaseSecondsDesc, t.Seconds[p].Seconds(), string(p))
	}
	for _, s := range t.Counters {
		if s.InFlight == nil {
			gauge(counterUpDesc, 0, s.Name)
			continue
		}
		gauge(counterUpDesc, 1, s.Name)
		gauge(inFlightDesc, float64(*s.InFlight), s.Name)
	}
	for name, calls := range t.Registries {
		for call, n := range calls {
			count(callsDesc, float64(n.Calls), name, call)
			count(failuresDesc, float64(n.Failures), name, call)
		}
	}
	for _, outcome := range drain.Outcomes() {
		sum := t.Drains[outcome]
		out <- prometheus.MustNewConstSummary(drainsDesc, sum.Count, sum.Seconds, nil, string(outcome))
	}
}

// metrics writes the text format by itself: promhttp would bring compressors
// that make the program bigger.
func metrics(d *drain.Drainer, version string) http.HandlerFunc {
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	return func(w http.ResponseWriter, r *http.Request) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(collector{r.Context(), d, version}, process)
		families, err := registry.Gather()
		if err != nil {
			fail(w, http.StatusInternalServerError, "gathering metrics: "+err.Error())
			return
		}
		w.Header().Set("Content-Type", string(format))
		out := expfmt.NewEncoder(w, format)
		for _, family := range families {
			if err := out.Encode(family); err != nil {
				slog.Debug("http: a scraper has left", "error", err)
				return
			}
		}
	}
}
