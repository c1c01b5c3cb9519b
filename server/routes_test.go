package server

import (
	"net/http"
	"testing"
)

func TestCallsAndTheirMethods(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		for path, allowed := range map[string][]string{
			"/prestop":   {http.MethodGet},
			"/poststart": {http.MethodGet},
			"/readyz":    {http.MethodGet},
			"/livez":     {http.MethodGet},
			"/status":    {http.MethodGet},
			"/metrics":   {http.MethodGet},
			"/drain":     {http.MethodPost, http.MethodDelete},
		} {
			for _, method := range []string{
				http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
				http.MethodDelete, http.MethodOptions, http.MethodTrace, "BREW",
			} {
				if method == allowed[0] || len(allowed) > 1 && method == allowed[1] {
					continue
				}
				w := e.call(method, path)
				wantsError(t, w, http.StatusMethodNotAllowed)
				if got := w.Header()["Allow"]; len(got) != len(allowed) || got[0] != allowed[0] {
					t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allowed)
				}
			}
		}
		if !e.d.Ready() {
			t.Error("one of these calls has begun a drain")
		}
	})
}

func TestUnknownPath(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		for _, path := range []string{
			"/", "/prestop/", "//prestop", "/PreStop", "/readyz/x", "/healthz", "/favicon.ico",
			"/%70restop%2f", "/drain/../prestop", "/debug/pprof/",
		} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				wantsError(t, e.call(method, path), http.StatusNotFound, "/prestop")
			}
		}
		if !e.d.Ready() {
			t.Error("one of these calls has begun a drain")
		}
	})
}

// Queries and headers that a kubelet adds to a call change nothing.
func TestQueriesAndHeadersAreIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		for _, path := range []string{"/livez?verbose", "/readyz?x=%zz", "/poststart?a=b;c", "/status?phase=drained"} {
			wants(t, e.call(http.MethodGet, path, "Accept", "text/html", "Accept-Encoding", "gzip", "Range", "bytes=0-0"), http.StatusOK)
		}
	})
}
