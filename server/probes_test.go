package server

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/wait"
)

func TestReadyzFollowsTheDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t)
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
		hook := e.later(http.MethodGet, "/prestop")
		synctest.Wait()
		wantsError(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable, "draining")
		wants(t, <-hook, http.StatusOK)
		wantsError(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable, "draining")
		wants(t, e.call(http.MethodDelete, "/drain"), http.StatusOK)
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
		e.d.Stop()
		wantsError(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable, "draining")
	})
}

func TestReadyzMayPassDuringADrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, func(c *drain.Config, _ *Options) { c.StayReady = true })
		wants(t, e.call(http.MethodGet, "/prestop"), http.StatusOK)
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
	})
}

func TestReadyzThatPassesDoesNotAskTheApp(t *testing.T) {
	var asked atomic.Int32
	url := app(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	e := newEdge(t, func(c *drain.Config, o *Options) { c.StayReady, o.AppReady = true, url })
	wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
	wants(t, e.call(http.MethodPost, "/drain"), http.StatusAccepted)
	wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
	if n := asked.Load(); n != 1 {
		t.Errorf("the app was asked %d times, want only before the drain", n)
	}
}

// Readiness waits first for the registry and then for the app. The app is not
// asked before that: some counters would count that as one more request.
func TestReadyzWaitsUntilThePodIsListed(t *testing.T) {
	var asked atomic.Int32
	answer := atomic.Int32{}
	answer.Store(http.StatusServiceUnavailable)
	url := app(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(answer.Load()))
	})
	e := newEdge(t, func(c *drain.Config, o *Options) {
		c.ReadyWhenListed, c.ListedWithin, o.AppReady = true, time.Hour, url
		c.Registries[0].Registry.(*registry).setUnknown()
	})
	w := e.call(http.MethodGet, "/readyz")
	wantsError(t, w, http.StatusServiceUnavailable, "waiting for reg to list the pod", "more at most")
	wants(t, e.call(http.MethodGet, "/livez"), http.StatusOK)
	if n := asked.Load(); n > 0 {
		t.Errorf("the app was asked %d times before", n)
	}
	e.registry.setKnown()
	wait.Until(t, "the registry being seen to list the pod", func() bool {
		return strings.Contains(e.call(http.MethodGet, "/readyz").Body.String(), "LASTCALL_APP_READY_URL")
	})
	answer.Store(http.StatusOK)
	wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
	e.registry.setUnknown()
	e.registry.setBroken(errBroken)
	wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
}

// A pod that is never listed becomes ready when the time limit for it has
// passed.
func TestReadyzOfAPodThatIsNeverListed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, func(c *drain.Config, _ *Options) {
			c.ReadyWhenListed, c.ListedWithin = true, time.Minute
			c.Registries[0].Registry.(*registry).setUnknown()
		})
		after(59 * time.Second)
		wantsError(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable, "waiting for reg to list the pod", "for 1s more at most")
		after(2 * time.Second)
		wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
		s := e.status()
		if len(s.Warnings) == 0 || !strings.Contains(strings.Join(s.Warnings, "\n"), "was not seen to list the pod within 1m0s") {
			t.Errorf("warnings: %q", s.Warnings)
		}
		if body := e.call(http.MethodGet, "/metrics").Body.String(); !strings.Contains(body, "lastcall_registry_listed{registry=\"reg\"} 0") {
			t.Errorf("the metrics do not say so:\n%s", body)
		}
	})
}

func TestLivezAlwaysAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEdge(t, withToken("secret"))
		wants(t, e.call(http.MethodGet, "/livez"), http.StatusOK)
		e.counter.set(0, errBroken)
		e.registry.setBroken(errBroken)
		e.d.Stop()
		for range 40 { // through the drain and the grace period
			wants(t, e.call(http.MethodGet, "/livez"), http.StatusOK)
			after(time.Second)
		}
	})
}

// withApp sets the address of the app's readiness.
func withApp(address string) settings {
	return func(_ *drain.Config, o *Options) { o.AppReady = address }
}

// app starts a server that answers as the app's readiness does.
func app(t *testing.T, answer http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL + "/ready"
}

func code(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
}

func TestReadyzAsksTheApp(t *testing.T) {
	elsewhere := app(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		code   int
		says   string
	}{
		"200": {code(200), http.StatusOK, ""},
		"204": {code(204), http.StatusOK, ""},
		"302": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) }, http.StatusOK, ""},
		"399": {code(399), http.StatusOK, ""},
		"400": {code(400), http.StatusServiceUnavailable, "answers 400"},
		"404": {code(404), http.StatusServiceUnavailable, "answers 404"},
		"500": {code(500), http.StatusServiceUnavailable, "answers 500"},
		"503": {code(503), http.StatusServiceUnavailable, "answers 503"},
		"a body without end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = fmt.Fprint(w, strings.Repeat("x", 1<<10)) // the caller leaves in the middle
			}
		}, http.StatusOK, ""},
		"hangs up":      {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, http.StatusServiceUnavailable, "cannot be asked: EOF"},
		"never answers": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, http.StatusServiceUnavailable, "cannot be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			settings := []settings{withApp(app(t, test.answer))}
			if name == "never answers" {
				settings = append(settings, func(_ *drain.Config, o *Options) { o.appReadyLimit = 0 }) // the default
			}
			e := newEdge(t, settings...)
			w := e.call(http.MethodGet, "/readyz")
			if test.code == http.StatusOK {
				wants(t, w, http.StatusOK)
				return
			}
			wantsError(t, w, test.code, "LASTCALL_APP_READY_URL", test.says)
		})
	}
}

func TestReadyzOfAnAppThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e := newEdge(t, withApp("http://user:hunter2@"+l.Addr().String()+"/ready?key=hunter3"))
	w := e.call(http.MethodGet, "/readyz")
	wantsError(t, w, http.StatusServiceUnavailable, "connection refused")
	if strings.Contains(w.Body.String(), "hunter") {
		t.Errorf("the answer shows a secret: %s", w.Body)
	}
}

func TestReadyzAsksTheAppAsAKubeletDoes(t *testing.T) {
	var asked http.Request
	e := newEdge(t, withApp(strings.Replace(app(t, func(_ http.ResponseWriter, r *http.Request) { asked = *r }), "http://", "http://user:hunter2@", 1)))
	wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
	if name, password, _ := asked.BasicAuth(); name != "user" || password != "hunter2" {
		t.Errorf("asked as %q, %q", name, password)
	}
	if !asked.Close || asked.Method != http.MethodGet || asked.URL.Path != "/ready" || asked.Header.Get("Cookie") != "" {
		t.Errorf("asked with %+v", asked.Header)
	}
}

func TestReadyzAsksOverTLSWithoutTrust(t *testing.T) {
	s := httptest.NewTLSServer(code(200)) // with a certificate that nobody trusts
	t.Cleanup(s.Close)
	e := newEdge(t, withApp(s.URL))
	wants(t, e.call(http.MethodGet, "/readyz"), http.StatusOK)
}

// The app is not asked during a drain, and an answer that arrives during a
// drain is ignored.
func TestReadyzDuringADrainDoesNotAskTheApp(t *testing.T) {
	asked := make(chan struct{}, 10)
	proceed := make(chan struct{})
	e := newEdge(t, withApp(app(t, func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-proceed
	})))
	probe := e.later(http.MethodGet, "/readyz")
	<-asked
	e.d.Begin(drain.CauseHook)
	close(proceed)
	wantsError(t, <-probe, http.StatusServiceUnavailable)
	wantsError(t, e.call(http.MethodGet, "/readyz"), http.StatusServiceUnavailable, "draining")
	if len(asked) > 0 {
		t.Error("the app was asked during the drain")
	}
}
