package nacos

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"lastcall/drain"
)

// before puts a handler in front of the server. own answers some requests; all
// others are passed on.
func (h *harness) before(t *testing.T, own func(http.ResponseWriter, *http.Request) bool) *harness {
	t.Helper()
	h.cfg.URLs = []string{serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !own(w, r) {
			h.f.ServeHTTP(w, r)
		}
	}))}
	return h
}

// A gateway answers unknown paths with a page, a redirect, or a refusal of its
// own. The plug-in detects the server's API nevertheless.
func TestGatewayBeforeOlderServers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"a page":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<!doctype html><p>hello")) },
		"other JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"UP"}`)) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"no route": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"code":404,"message":"no route"}`))
		},
		"a refusal": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "denied", http.StatusForbidden) },
	} {
		for _, major := range []int{1, 2} {
			h := kind{"", major, nil, beats}.start(t)
			h.before(t, func(w http.ResponseWriter, r *http.Request) bool {
				unknown := strings.HasPrefix(r.URL.Path, "/nacos/v3/") || major == 1 && strings.HasPrefix(r.URL.Path, "/nacos/v2/")
				if unknown {
					answer(w, r)
				}
				return unknown
			})
			h.Register(t)
			r := h.plugIn(t)
			find(t, r)
			do(t, "Withdraw", r.Withdraw)
			if !isWithdrawn(t, r) || h.Listed(t) {
				t.Errorf("%s before Nacos %d: it is listed", name, major)
			}
		}
	}
}

// If a gateway loses its server in the middle of a drain, its answers mean
// nothing for the instance.
func TestGatewayWithoutItsServer(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		for _, answer := range []struct {
			code int
			body string
		}{
			{200, "<!doctype html><p>hello"}, {200, ""}, {200, "null"}, {200, "[]"}, {200, `{"code":0,"data":null}`}, {200, `{"code":200,"data":[]}`},
			{404, `{"code":404,"message":"no route"}`}, {404, "not found"}, {502, "no upstream"}, {302, ""}, {403, "denied"}, {500, "no service here"},
		} {
			var lost atomic.Bool
			h := kind{"", major, nil, beats}.start(t).before(t, func(w http.ResponseWriter, _ *http.Request) bool {
				if lost.Load() {
					w.WriteHeader(answer.code)
					_, _ = w.Write([]byte(answer.body))
				}
				return lost.Load()
			})
			h.Register(t)
			r := h.plugIn(t)
			find(t, r)
			lost.Store(true)
			for range 2 {
				if gone, err := r.Withdrawn(t.Context()); gone || err == nil {
					t.Errorf("Nacos %d, %d %q: withdrawn %v, %v; want an error", major, answer.code, answer.body, gone, err)
				}
			}
			if _, err := r.Find(t.Context()); err == nil || errors.As(err, new(*drain.NotFoundError)) {
				t.Errorf("Nacos %d, %d %q: Find: %v; want an error that is no NotFoundError", major, answer.code, answer.body, err)
			}
			lost.Store(false)
			do(t, "Withdraw", r.Withdraw)
			if !isWithdrawn(t, r) || h.Listed(t) {
				t.Errorf("Nacos %d, %d %q: not withdrawn when the server is back", major, answer.code, answer.body)
			}
		}
	}
}
