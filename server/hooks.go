package server

import (
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"lastcall/drain"
)

// preStop blocks until the drain has ended. It sends nothing before that:
// sending the headers early gains nothing, since the kubelet waits for the
// body.
func preStop(d *drain.Drainer) http.HandlerFunc {
	var last reportText
	return func(w http.ResponseWriter, r *http.Request) {
		holdHook(r.Context())
		// The header and the query would be held in memory while this blocks.
		clear(r.Header)
		r.URL.RawQuery = ""
		report, err := d.PreStop(r.Context())
		if err != nil {
			slog.Info("http: a caller of /prestop has left; the drain goes on", "caller", r.RemoteAddr)
			// A caller that has closed only its half of the connection still
			// reads this, and must not take it for the drain's end.
			fail(w, http.StatusServiceUnavailable, "the connection was closed before the drain ended; it goes on")
			return
		}
		code := http.StatusGatewayTimeout
		switch report.Outcome {
		case drain.OutcomeDrained:
			code = http.StatusOK
		case drain.OutcomeNotFound:
			code = http.StatusFailedDependency
		case drain.OutcomeTakenBack:
			code = http.StatusConflict
		case drain.OutcomeExpired, drain.OutcomeCutShort:
		}
		answerJSON(w, code, last.text(report))
	}
}

// reportText is the last report as JSON. It is encoded once for all the hooks
// that end with this report.
type reportText struct {
	mu      sync.Mutex
	began   time.Time
	seconds float64
	body    []byte
}

func (l *reportText) text(r drain.Report) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.body == nil || !l.began.Equal(r.Began) || l.seconds != r.Seconds {
		l.began, l.seconds, l.body = r.Began, r.Seconds, encode(fit(r))
	}
	return l.body
}

// reportBytes is how much of an answer a kubelet reads.
const reportBytes = 10 << 10

// fit drops events from the middle of a report's timeline until the kubelet can
// read all of the report. Errors may hold many characters that JSON must
// escape.
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
