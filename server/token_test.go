package server

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
)

// guarded are the calls that need the token.
var guarded = []struct {
	method, path string
	code         int
}{
	{http.MethodGet, "/poststart", http.StatusOK},
	{http.MethodPost, "/drain", http.StatusAccepted},
	{http.MethodGet, "/prestop", http.StatusOK},
	{http.MethodDelete, "/drain", http.StatusOK},
}

func TestToken(t *testing.T) {
	const token = "Hunter2-Hunter2"
	for name, test := range map[string]struct {
		header []string
		code   int // 0: the code of the call itself
	}{
		"none":                         {nil, http.StatusUnauthorized},
		"empty":                        {[]string{""}, http.StatusUnauthorized},
		"no scheme":                    {[]string{token}, http.StatusUnauthorized},
		"another scheme":               {[]string{"Basic " + token}, http.StatusUnauthorized},
		"the scheme alone":             {[]string{"Bearer"}, http.StatusUnauthorized},
		"the scheme and a space":       {[]string{"Bearer "}, http.StatusForbidden},
		"a wrong one":                  {[]string{"Bearer wrong"}, http.StatusForbidden},
		"the beginning of it":          {[]string{"Bearer " + token[:8]}, http.StatusForbidden},
		"more than it":                 {[]string{"Bearer " + token + "x"}, http.StatusForbidden},
		"another case":                 {[]string{"Bearer " + strings.ToLower(token)}, http.StatusForbidden},
		"a very long one":              {[]string{"Bearer " + strings.Repeat(token, 500)}, http.StatusForbidden},
		"the right one is the second":  {[]string{"Bearer wrong", "Bearer " + token}, http.StatusForbidden},
		"right":                        {[]string{"Bearer " + token}, 0},
		"right, in lower case":         {[]string{"bearer " + token}, 0},
		"right, in upper case":         {[]string{"BEARER " + token}, 0},
		"right, with spaces around it": {[]string{"Bearer  " + token + " "}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEdge(t, withToken(token))
				var headers []string
				for _, h := range test.header {
					headers = append(headers, "Authorization", h)
				}
				for _, call := range guarded {
					w := e.call(call.method, call.path, headers...)
					if test.code == 0 {
						wants(t, w, call.code)
						continue
					}
					wantsError(t, w, test.code, "LASTCALL_TOKEN")
					if got := w.Header().Get("WWW-Authenticate"); (got != "") != (test.code == http.StatusUnauthorized) {
						t.Errorf("%d with WWW-Authenticate: %q", test.code, got)
					}
					if s := e.status(); s.Phase != drain.Serving {
						t.Fatalf("%s has begun a drain", call.path)
					}
				}
				// The other calls need no token.
				for _, path := range []string{"/livez", "/readyz", "/status", "/metrics"} {
					if w := e.call(http.MethodGet, path); w.Code != http.StatusOK {
						t.Errorf("%s answers %d without a token", path, w.Code)
					}
				}
			})
		})
	}
}

func TestWithoutATokenNoneIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		for _, call := range guarded {
			wants(t, e.call(call.method, call.path, "Authorization", "Bearer whatever"), call.code)
		}
	})
}

// Neither the token nor a wrong token that a caller sends is shown anywhere.
func TestTokenIsNotShown(t *testing.T) {
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(slog.New(slog.DiscardHandler))
	var said strings.Builder
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, withToken("hunter2"))
		network := e.serve(Options{Token: "hunter2"})
		for _, header := range []string{"Bearer hunter2", "Bearer hunter3", "Basic hunter4", "Bearer\x00hunter5"} {
			for _, call := range guarded {
				w := network.dial()
				w.say(call.method + " " + call.path + " HTTP/1.1\r\nHost: pod\r\nAuthorization: " + header + "\r\n\r\n")
				after(10 * time.Second)
				said.WriteString(w.received())
			}
		}
		for _, path := range []string{"/status", "/metrics"} {
			said.Write(e.call(http.MethodGet, path).Body.Bytes())
		}
	})
	if strings.Contains(said.String(), "hunter") {
		t.Errorf("the answers show a token:\n%s", said.String())
	}
	if log.Len() == 0 || strings.Contains(log.String(), "hunter") {
		t.Errorf("the log is empty, or shows a token:\n%s", log.String())
	}
}

// A refused hook shows only in the log, and callers without the token cannot
// fill the log.
func TestRefusedCallsAreLogged(t *testing.T) {
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(slog.New(slog.DiscardHandler))
	bubble(t, func(t *testing.T) {
		e := newEdge(t, withToken("hunter2"))
		logged := func() int { return strings.Count(log.String(), "refused a call") }
		for range 100 {
			e.call(http.MethodGet, "/prestop", "User-Agent", "kube-lifecycle/1.34", "Authorization", "Bearer another")
			e.call(http.MethodPost, "/drain")
		}
		if got := logged(); got != 1 || !strings.Contains(log.String(), "path=/prestop") || !strings.Contains(log.String(), "agent=kube-lifecycle/1.34") {
			t.Errorf("logged %d times:\n%s", got, &log)
		}
		after(logRefusalsEvery)
		e.call(http.MethodPost, "/drain")
		if got := logged(); got != 2 {
			t.Errorf("logged %d times, want once more:\n%s", got, &log)
		}
	})
}
