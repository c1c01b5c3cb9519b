package server

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"lastcall/drain"
)

// metrics serves what the drainer has counted. The names are stable;
// docs/metrics.md describes each metric.
func metrics(d *drain.Drainer, version string) http.HandlerFunc {
	page := &shared[[]byte]{produce: func(ctx context.Context) []byte { return metricsPage(d.Totals(ctx), version) }}
	return func(w http.ResponseWriter, r *http.Request) {
		text, ok := page.get(r.Context())
		if !ok {
			fail(w, http.StatusInternalServerError, "the metrics could not be produced, see the log")
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(text) // the scraper may have left
	}
}

// metricsPage returns t in the format that Prometheus reads.
func metricsPage(t drain.Totals, version string) []byte {
	var e exposition
	e.family("lastcall_build_info", "gauge", "1, labelled by the version of lastcall.")
	e.sample("", 1, "version", version)

	e.family("lastcall_phase", "gauge", "1 for the phase that the pod is in, 0 for the others.")
	for _, p := range drain.Phases() {
		e.sample("", oneIf(p == t.Phase), "phase", string(p))
	}
	e.family("lastcall_phase_seconds_total", "counter", "Time spent in each phase.")
	for _, p := range drain.Phases() {
		e.sample("", t.Seconds[p].Seconds(), "phase", string(p))
	}

	e.family("lastcall_in_flight", "gauge", "Work in flight, by counter. Absent while the counter cannot be read.")
	for _, c := range t.Counters {
		if c.InFlight != nil {
			e.sample("", float64(*c.InFlight), "counter", c.Name)
		}
	}
	e.family("lastcall_counter_up", "gauge", "1 when the counter could be read, 0 when not.")
	for _, c := range t.Counters {
		e.sample("", oneIf(c.InFlight != nil), "counter", c.Name)
	}

	e.family("lastcall_counter_errors_total", "counter", "Readings of each counter that failed.")
	for _, name := range slices.Sorted(maps.Keys(t.Errors)) {
		e.sample("", float64(t.Errors[name]), "counter", name)
	}

	e.family("lastcall_counter_longest_answer_seconds", "gauge", "The longest silence seen in the middle of work, by counters that learn it.")
	for _, c := range t.Counters {
		if c.Learned != nil {
			e.sample("", c.Learned.LongestSeconds, "counter", c.Name)
		}
	}
	e.family("lastcall_counter_silence_seconds", "gauge", "How long a connection in doubt must be silent to count as idle. Absent while too little was seen to say.")
	for _, c := range t.Counters {
		if c.Learned != nil && c.Learned.SilenceSeconds != nil {
			e.sample("", *c.Learned.SilenceSeconds, "counter", c.Name)
		}
	}

	eachPort := func(name, kind, help string, value func(drain.PortState) float64) {
		e.family(name, kind, help)
		for _, p := range t.Ports {
			e.sample("", value(p), "port", strconv.Itoa(p.Port))
		}
	}
	eachPort("lastcall_app_listening", "gauge", "1 when somebody listens on the app's port. Absent while that cannot be seen.",
		func(p drain.PortState) float64 { return oneIf(p.Listening) })
	eachPort("lastcall_app_port_silent", "gauge", "1 when nobody has ever listened on the app's port, and Lastcall has reported it.",
		func(p drain.PortState) float64 { return oneIf(p.Silent) })
	eachPort("lastcall_app_starts_total", "counter", "How often somebody was seen to start listening on the app's port.",
		func(p drain.PortState) float64 { return float64(p.Starts) })

	e.family("lastcall_registry_calls_total", "counter", "Calls to each registry.")
	eachCall(t, func(registry, call string, n drain.CallCount) {
		e.sample("", float64(n.Calls), "call", call, "registry", registry)
	})
	e.family("lastcall_registry_call_failures_total", "counter", "Calls to each registry that failed.")
	eachCall(t, func(registry, call string, n drain.CallCount) {
		e.sample("", float64(n.Failures), "call", call, "registry", registry)
	})

	e.family("lastcall_registry_instance_found", "gauge", "1 once the registry has been seen to hold the pod's instance, 0 while it has not. Absent until it was searched.")
	for _, registry := range slices.Sorted(maps.Keys(t.Found)) {
		e.sample("", oneIf(t.Found[registry]), "registry", registry)
	}

	e.family("lastcall_registry_listed", "gauge", "1 once the registry has been seen to list the pod, 0 while it has not. Absent where readiness does not wait for that.")
	for _, registry := range slices.Sorted(maps.Keys(t.Listed)) {
		e.sample("", oneIf(t.Listed[registry]), "registry", registry)
	}

	e.family("lastcall_drain_budget_seconds", "gauge", "The longest that a drain may take.")
	e.sample("", t.Budget.Seconds())
	e.family("lastcall_drain_budget_needed_seconds", "gauge", "What a drain takes with registries as slow as they may be and nothing in flight.")
	e.sample("", t.Needed.Seconds())

	e.family("lastcall_drain_duration_seconds", "summary", "How long drains took, by outcome.")
	for _, o := range drain.Outcomes() {
		e.sample("_sum", t.Drains[o].Seconds, "outcome", string(o))
		e.sample("_count", float64(t.Drains[o].Count), "outcome", string(o))
	}
	return e.text
}

// oneIf returns a condition as a gauge's value.
func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// eachCall visits the calls to registries in a stable order.
func eachCall(t drain.Totals, visit func(registry, call string, n drain.CallCount)) {
	for _, registry := range slices.Sorted(maps.Keys(t.Registries)) {
		calls := t.Registries[registry]
		for _, call := range slices.Sorted(maps.Keys(calls)) {
			visit(registry, call, calls[call])
		}
	}
}
