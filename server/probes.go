package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"lastcall/drain"
)

// appReadyLimit is how long the app's readiness may take to answer. By default,
// a kubelet's probe times out after a second.
const appReadyLimit = 900 * time.Millisecond

func livez(w http.ResponseWriter, _ *http.Request) { ok(w) }

func readyz(d *drain.Drainer, app *appProbe) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if ready, why := d.Readiness(); !ready {
			fail(w, http.StatusServiceUnavailable, why)
			return
		}
		if d.Leaving() {
			// The pod stays ready, as configured. The app is not asked: some
			// counters would count that as one more request.
			ok(w)
			return
		}
		if err := app.ask(r.Context()); err != nil {
			fail(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		if ready, why := d.Readiness(); !ready { // a drain may have begun meanwhile
			fail(w, http.StatusServiceUnavailable, why)
			return
		}
		ok(w)
	}
}

// appProbe asks for the app's own readiness as a kubelet does: any status code
// from 200 to 399 means ready, redirects are not followed, and certificates are
// not verified.
//
// Callers that ask at the same time share one answer: a caller that reaches the
// port must not be able to call the app as often as it likes.
type appProbe struct {
	url    string
	client *http.Client
	shared shared[error]
}

// AppReady returns a function that asks for the app's own readiness at a URL,
// as /readyz does. Several goroutines may call the function; they share an
// answer.
func AppReady(address string) func(context.Context) error {
	return newAppProbe(address, appReadyLimit).ask
}

func newAppProbe(address string, limit time.Duration) *appProbe {
	p := &appProbe{url: address, client: &http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as the kubelet's probes; it is the pod's own app
			DisableKeepAlives: true,                                  // a kept connection would look like a client
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	p.shared.joins, p.shared.produce = true, p.askApp
	return p
}

// errNotAsked is the error for callers whose shared request was not completed.
var errNotAsked = errors.New("the check of the app's readiness (LASTCALL_APP_READY_URL) was not completed, see the log")

// ask returns why the app is not ready, or nil.
func (p *appProbe) ask(ctx context.Context) error {
	if p.url == "" {
		return nil
	}
	err, ok := p.shared.get(ctx)
	if !ok {
		return errNotAsked
	}
	return err
}

func (p *appProbe) askApp(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return fmt.Errorf("the app's readiness: LASTCALL_APP_READY_URL: %w", err)
	}
	req.Header.Set("User-Agent", "lastcall")
	resp, err := p.client.Do(req)
	if err != nil {
		if failed, isURL := err.(*url.Error); isURL { //nolint:errorlint // what the client returns, unwrapped
			err = failed.Err // without the URL, which may hold a secret
		}
		slog.Debug("http: the app's readiness cannot be asked", "error", err)
		return fmt.Errorf("the app's readiness (LASTCALL_APP_READY_URL) cannot be asked: %w", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("the app's readiness (LASTCALL_APP_READY_URL) answers %d", resp.StatusCode)
	}
	return nil
}
