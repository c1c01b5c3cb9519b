package server

import (
	"log/slog"
	"net/http"

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
			return
		}
		switch report.Outcome {
		case drain.OutcomeDrained:
			answer(w, http.StatusOK, report)
		case drain.OutcomeTakenBack:
			answer(w, http.StatusConflict, report)
		case drain.OutcomeExpired, drain.OutcomeCutShort:
			answer(w, http.StatusGatewayTimeout, report)
		}
	}
}

// postStart answers at once: the kubelet kills a container whose postStart
// hook fails.
func postStart(d *drain.Drainer) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		d.PostStart()
		ok(w)
	}
}
