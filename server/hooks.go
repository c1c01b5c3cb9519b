package server

import (
	"log/slog"
	"net/http"
	"slices"

	"lastcall/drain"
)

// preStop blocks until the drain has ended. Nothing is sent before: headers
// that are flushed early gain nothing, since the kubelet waits for the body.
// The connection is closed with the answer: a kubelet that sent the hook on a
// kept connection which then drops would silently send it again.
func preStop(d *drain.Drainer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		report, err := d.PreStop(r.Context())
		if err != nil {
			slog.Info("http: a caller of /prestop has left; the drain goes on", "caller", r.RemoteAddr)
			// One who has only closed his half of the connection still reads
			// this, and must not take it for the drain's end.
			fail(w, http.StatusServiceUnavailable, "the connection was closed before the drain ended; it goes on")
			return
		}
		report = fit(report)
		switch report.Outcome {
		case drain.OutcomeDrained:
			answer(w, http.StatusOK, report)
		case drain.OutcomeNotFound:
			answer(w, http.StatusFailedDependency, report)
		case drain.OutcomeTakenBack:
			answer(w, http.StatusConflict, report)
		case drain.OutcomeExpired, drain.OutcomeCutShort:
			answer(w, http.StatusGatewayTimeout, report)
		}
	}
}

// reportBytes is how much of an answer a kubelet reads.
const reportBytes = 10 << 10

// fit drops events from the middle of a report's timeline until the report is
// no longer than a kubelet reads: errors may hold much that JSON must escape.
func fit(r drain.Report) drain.Report {
	for len(r.Timeline) > 2 && len(encode(r)) > reportBytes {
		middle := len(r.Timeline) / 2
		r.Timeline = slices.Delete(slices.Clone(r.Timeline), middle, middle+1)
	}
	return r
}

// postStart answers at once: the kubelet kills a container whose postStart
// hook fails.
func postStart(d *drain.Drainer) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		d.PostStart()
		ok(w)
	}
}
