// Package envoy counts the requests in flight in Envoy, by the statistics of its
// admin interface, and tells it to send its clients away when a drain begins.
//
// # What is counted
//
// Requests, since an idle keep-alive connection is no work and may never end:
// `http.<stat_prefix>.downstream_rq_active` of each HTTP connection manager, for
// HTTP/1, 2 and 3 alike. A WebSocket is a request until it is closed. Where there
// is no HTTP, connections: `listener.<address>.downstream_cx_active` of each
// listener, less those of HTTP managers. Which managers a listener has is told
// by its statistics (`listener.<address>.http.<stat_prefix>…`), so that listeners
// with filter chains of both kinds come out right. Datagrams are not counted.
//
// Arrived is the number of requests, or plain connections, that have come, less
// the requests that a manager's health check filter has taken.
//
// # What is not
//
// The admin interface, which Envoy names `admin`. The listeners for statistics
// and readiness that Envoy Gateway (managers eg-ready-http and eg-stats-http),
// Contour (envoy-admin; stats on port 8002) and Istio (stats on port 15090, agent
// on 15021) set up. With LASTCALL_ENVOY_LISTENERS it is told what is counted
// instead: the HTTP managers whose stat_prefix matches, and the listeners whose
// name in the statistics matches (their stat_prefix, or their address with _ for
// :, such as 0.0.0.0_8443), with their managers. A listener of your own for
// readiness is left out by it: `^ingress_http$`. A name is matched anywhere in
// it unless ^ and $ are given.
//
// Envoy must have these statistics. Where stats_matcher leaves some out, as
// Istio's does, it has to let the prefixes `http.` and `listener.` through.
//
// # Drain
//
// StopAccepting fails Envoy's health check, which takes it out of load balancers
// that ask it, and makes it end each connection with the next answer
// (`Connection: close`, GOAWAY); and it begins Envoy's drain of the listeners,
// for those whose drain_type ignores the health check, without closing them:
// new connections and requests are served as before.
//
// StartAccepting lets the health check pass again. The drain of the listeners
// cannot be undone: from then on until it is started anew, Envoy ends a growing
// part of its connections with an answer, over --drain-time-s all of them. No
// request fails of that; clients connect more often.
//
// # Stop
//
// Envoy ends at once at SIGTERM. When its admin interface refuses connections,
// what remains of its connections is counted, see package gone, down to zero,
// which is Envoy gone for good; LASTCALL_APP_PORT must be Envoy's port for this,
// and the admin interface in this pod.
package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"

	"lastcall/drain"
	"lastcall/internal/fetch"
	"lastcall/internal/gone"
	"lastcall/internal/procnet"
)

// Config is the counter's part of the environment.
type Config struct {
	Admin     string `envconfig:"LASTCALL_ENVOY_ADMIN" default:"http://127.0.0.1:9901" desc:"Envoy's admin address; a drain also fails its health check and drains its listeners" secret:"url"`
	Listeners string `envconfig:"LASTCALL_ENVOY_LISTENERS" desc:"a regular expression: which listeners or HTTP managers to count (all but admin when unset)"`
}

// Counter is a drain.Counter, a drain.AcceptStopper and a drain.AcceptStarter.
type Counter struct {
	admin     *url.URL
	client    *http.Client
	listeners *regexp.Regexp // nil when unset
	proxy     *gone.Proxy
}

// New makes the counter, and asks nothing yet.
func New(cfg Config, pod drain.Pod) (*Counter, error) {
	admin, err := fetch.ParseURL("LASTCALL_ENVOY_ADMIN", cfg.Admin, "http://127.0.0.1:9901")
	if err == nil && admin.RawQuery != "" {
		err = errors.New("LASTCALL_ENVOY_ADMIN must be the address of the admin interface alone, such as http://127.0.0.1:9901")
	}
	var listeners *regexp.Regexp
	var patternErr error
	if cfg.Listeners != "" {
		if listeners, patternErr = regexp.Compile(cfg.Listeners); patternErr != nil {
			patternErr = fmt.Errorf("LASTCALL_ENVOY_LISTENERS must be a regular expression, such as ^ingress_http$: %w", patternErr)
		}
	}
	if err := errors.Join(err, patternErr); err != nil {
		return nil, err
	}
	return &Counter{
		admin:     admin,
		client:    fetch.NewClient(),
		listeners: listeners,
		proxy: &gone.Proxy{
			Local:    fetch.Local(admin.Hostname(), pod.IP),
			PagePort: fetch.Port(admin),
			AppPorts: pod.AppPorts,
			Sockets:  procnet.Kernel(),
		},
	}, nil
}

// Limits of what is read. A listener has under 20 kilobytes, half of it for a
// machine of 64 cores.
const (
	statsLimit  = 16 << 20
	answerLimit = 1 << 20
)

// Count reads the statistics. It is an error when they cannot be read, or lack
// what is counted, unless Envoy is gone: then what is in flight are the
// connections that remain, and arrivals are not told.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	r, err := c.read(ctx)
	if fetch.Refused(err) {
		r.InFlight, err = c.proxy.Left(err)
	}
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading Envoy's statistics (LASTCALL_ENVOY_ADMIN): %w", err)
	}
	return r, nil
}

func (c *Counter) read(ctx context.Context) (drain.Reading, error) {
	body, err := fetch.Get(ctx, c.client, c.url("stats", "format=json&filter="+url.QueryEscape(filter)), statsLimit)
	if err != nil {
		return drain.Reading{}, err
	}
	s, err := parse(body)
	if err != nil {
		return drain.Reading{}, err
	}
	chosen := s.choose(c.listeners)
	switch {
	case c.listeners != nil && !chosen.any():
		return drain.Reading{}, fmt.Errorf("LASTCALL_ENVOY_LISTENERS=%s matches none of Envoy's HTTP managers and listeners: %s", c.listeners, s.names())
	case c.listeners == nil && len(s.listeners) == 0:
		if err := c.hasNone(ctx); err != nil {
			return drain.Reading{}, err
		}
	}
	c.proxy.Readable()
	r := drain.Reading{HasArrived: true}
	r.InFlight, r.Arrived = s.sum(chosen)
	return r, nil
}

// hasNone returns an error if Envoy has listeners, which its statistics lack.
func (c *Counter) hasNone(ctx context.Context) error {
	body, err := fetch.Get(ctx, c.client, c.url("listeners", "format=json"), answerLimit)
	if err != nil {
		return err
	}
	var answer map[string][]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer is not Envoy's list of listeners: %w", err)
	}
	if answer == nil {
		return errors.New("the answer is not Envoy's list of listeners: it is null")
	}
	// An Envoy without listeners answers {}. What has anything else in it is
	// another's answer, and tells nothing of listeners.
	const statuses = "listener_statuses"
	for name := range answer {
		if name != statuses {
			return fmt.Errorf("the answer is not Envoy's list of listeners: it has %q", name)
		}
	}
	if n := len(answer[statuses]); n > 0 {
		return fmt.Errorf("the statistics have no listener, though Envoy has %d: stats_matcher must let the prefixes http. and listener. through", n)
	}
	return nil
}

// StopAccepting makes Envoy send its clients away.
func (c *Counter) StopAccepting(ctx context.Context) error {
	return errors.Join(
		c.tell(ctx, "healthcheck/fail", ""),
		c.tell(ctx, "drain_listeners", "graceful&skip_exit"),
	)
}

// StartAccepting undoes StopAccepting, as far as Envoy can.
func (c *Counter) StartAccepting(ctx context.Context) error {
	return c.tell(ctx, "healthcheck/ok", "")
}

// tell makes a call that changes something. One that is gone need not be told.
func (c *Counter) tell(ctx context.Context, path, query string) error {
	_, err := fetch.Post(ctx, c.client, c.url(path, query), answerLimit)
	if fetch.Refused(err) {
		_, err = c.proxy.Left(err)
	}
	if err != nil {
		return fmt.Errorf("telling Envoy (LASTCALL_ENVOY_ADMIN): %w", err)
	}
	return nil
}

func (c *Counter) url(path, query string) string {
	u := c.admin.JoinPath(path)
	u.RawQuery = query
	return u.String()
}
