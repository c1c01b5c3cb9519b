// Package envoy counts the requests in flight in Envoy, using the statistics of
// its admin interface. When a drain begins, it makes Envoy send its clients
// away.
//
// # What is counted
//
// Requests are counted, because an idle keep-alive connection is not work and
// may never end: `http.<stat_prefix>.downstream_rq_active` of each HTTP
// connection manager, for HTTP/1, 2 and 3. A WebSocket is a request until it is
// closed. Without HTTP, connections are counted:
// `listener.<address>.downstream_cx_active` of each listener, without those of
// HTTP managers. A listener's configuration and its statistics
// (`listener.<address>.http.<stat_prefix>…`) show which managers it has, so
// that listeners with filter chains of both kinds are counted correctly.
// Datagrams are not counted.
//
// Arrived is the number of requests, or plain connections, that have come,
// without the requests that a manager's health check filter has answered.
//
// # What is not counted
//
// These are not counted: the admin interface, which Envoy names `admin`; the
// listeners for statistics and readiness that Envoy Gateway (managers
// eg-ready-http and eg-stats-http), Contour (envoy-admin; stats on port 8002)
// and Istio (stats on port 15090, agent on 15021) configure; internal
// listeners, whose clients are other listeners; and OUTBOUND listeners, through
// which a pod in a mesh reaches others. If nothing else is left to count, as on
// a mesh's gateways, the OUTBOUND listeners are counted.
//
// LASTCALL_ENVOY_LISTENERS defines instead what is counted: the HTTP managers
// whose stat_prefix matches, and the listeners whose name in the statistics
// matches, with their managers. That name is the listener's stat_prefix, or its
// address with _ for :, such as 0.0.0.0_8443. Use it to exclude your own
// listener for readiness: `^ingress_http$`. The expression matches anywhere in
// a name unless it has ^ and $.
//
// # What is missing
//
// /listeners is read with each reading, and /config_dump when the list or the
// names in the statistics have changed. They show which listeners and managers
// exist, and the direction of their traffic. Everything that is counted must
// have its statistics: if stats_matcher excludes one, that is an error.
// Statistics that do not count their own request are a cached copy, and also an
// error.
//
// # Hot restart
//
// The old process finishes its work. Envoy adds its statistics to those of the
// new process only when it flushes these, every 5 s. So what is in flight is an
// error until a flush has been seen, which shows in server.uptime. From then
// on, each connection that the old process still has
// (server.parent_connections) counts as at least one request. If readings flush
// the statistics (stats_flush_on_admin), they are exact.
//
// Open is the number of connections of the counted listeners. It is known only
// if all counted managers belong to these listeners and no old process has
// connections.
//
// # Drain
//
// StopAccepting fails Envoy's health check. This takes Envoy out of load
// balancers that use the check, and makes it end each connection with the next
// answer (`Connection: close`, GOAWAY). It also begins Envoy's drain of the
// listeners, for those whose drain_type ignores the health check, without
// closing them: new connections and requests are served as before.
//
// StartAccepting lets the health check pass again. The drain of the listeners
// cannot be undone. From then on until Envoy is restarted, it ends a growing
// part of its connections with an answer, and all of them after --drain-time-s.
// No request fails because of this, but clients connect more often.
//
// # Stop
//
// Envoy ends at once on SIGTERM. When its admin interface refuses connections,
// its remaining connections are counted (see package proxygone) down to zero,
// which means that Envoy is gone for good. For this, LASTCALL_APP_PORT must be
// Envoy's port, and the admin interface must be in this pod.
package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"

	"golang.org/x/sync/semaphore"

	"lastcall/drain"
	"lastcall/internal/fetch"
	"lastcall/internal/procnet"
	"lastcall/internal/proxygone"
)

// Config is the counter's part of the environment.
type Config struct {
	Admin     string `envconfig:"LASTCALL_ENVOY_ADMIN" default:"http://127.0.0.1:9901" desc:"Envoy's admin address, or unix:///path of its socket; a drain also fails its health check and drains its listeners" secret:"url"`
	Listeners string `envconfig:"LASTCALL_ENVOY_LISTENERS" desc:"a regular expression: which listeners or HTTP managers to count (when unset, all but admin and a mesh's outbound and internal ones)"`
	CAFile    string `envconfig:"LASTCALL_ENVOY_CA_FILE" desc:"PEM file of authorities to trust for LASTCALL_ENVOY_ADMIN, besides the system's"`
	TokenFile string `envconfig:"LASTCALL_ENVOY_TOKEN_FILE" desc:"file of a bearer token that is sent to LASTCALL_ENVOY_ADMIN"`
}

// Counter is a drain.Counter, a drain.AcceptStopper and a drain.AcceptStarter.
type Counter struct {
	admin     *fetch.Source
	listeners *regexp.Regexp // nil when unset
	proxy     *proxygone.Proxy

	// busy holds a token during a reading. It guards everything below.
	busy    *semaphore.Weighted
	list    []byte       // Envoy's list of listeners, at the last reading
	dumped  []configured // their configuration
	fresh   bool         // dumped was read during this reading
	config  config       // dumped, and listeners that are gone from it
	strange string       // the listeners that are only in the statistics
	asked   uint64       // requests to the admin interface, at the last reading
	restart restart
}

// New returns a counter. It requests nothing yet.
func New(cfg Config, pod drain.Pod) (*Counter, error) {
	admin, err := fetch.Open(fetch.Settings{
		Variable: "LASTCALL_ENVOY_ADMIN", Address: cfg.Admin, Example: "http://127.0.0.1:9901",
		Prefix: "LASTCALL_ENVOY", CAFile: cfg.CAFile, TokenFile: cfg.TokenFile,
	})
	if err == nil && admin.Query() {
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
		listeners: listeners,
		busy:      semaphore.NewWeighted(1),
		proxy: &proxygone.Proxy{
			Local:    admin.Local(pod.IP),
			PagePort: admin.Port(),
			AppPorts: pod.AppPorts,
			Sockets:  procnet.Kernel(),
		},
	}, nil
}

// Limits of how much is read. A listener has under 20 kilobytes; half of that
// is for a machine with 64 cores.
const (
	statsLimit  = 16 << 20
	answerLimit = 1 << 20
)

// Count reads the statistics. It returns an error if they cannot be read, or
// lack a part of what is counted, unless Envoy is gone: then the remaining
// connections count as in flight, and arrivals are not reported.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.busy.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("reading Envoy's statistics: an earlier reading has not ended: %w", err)
	}
	defer c.busy.Release(1)
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
	if !c.restart.off {
		// After a hot restart, a connection that is kept stays with the old
		// process, which knows nothing about the new one.
		defer c.admin.CloseIdleConnections()
	}
	if err := c.readConfig(ctx); err != nil {
		return drain.Reading{}, err
	}
	s, err := c.readStats(ctx)
	if err != nil {
		return drain.Reading{}, err
	}
	chosen, err := c.choose(&s)
	if strange := c.config.strange(s); !c.fresh && (err != nil || strange != c.strange) {
		// A listener may have changed without a change in the list.
		c.list = nil
		if err := c.readConfig(ctx); err != nil {
			return drain.Reading{}, err
		}
		chosen, err = c.choose(&s)
	}
	c.strange = c.config.strange(s)
	if err != nil {
		return drain.Reading{}, err
	}
	parent, err := c.previous(ctx, s)
	if err != nil {
		return drain.Reading{}, err
	}
	c.proxy.Readable()
	r := drain.Reading{HasArrived: true}
	r.InFlight, r.Arrived = s.sum(chosen)
	// Each connection of a parent process may carry a request that is not in
	// the statistics yet.
	if r.InFlight = max(r.InFlight, parent); parent == 0 {
		r.Open, r.HasOpen = s.open(chosen)
	}
	return r, nil
}

// choose returns what is counted, or an error if the statistics lack a part of
// it.
func (c *Counter) choose(s *stats) (choice, error) {
	c.config = c.config.with(c.dumped, *s)
	c.config.attach(*s)
	chosen := s.choose(c.listeners, c.config.leftOut())
	if err := c.config.missing(*s, chosen, c.listeners); err != nil {
		return choice{}, err
	}
	if c.listeners != nil && !chosen.any() {
		return choice{}, fmt.Errorf("LASTCALL_ENVOY_LISTENERS=%s matches none of Envoy's HTTP managers and listeners: %s", c.listeners, s.names())
	}
	return chosen, nil
}

// readStats reads the statistics.
func (c *Counter) readStats(ctx context.Context) (stats, error) {
	body, err := c.get(ctx, "stats", "format=json&filter="+url.QueryEscape(filter), statsLimit)
	if err != nil {
		return stats{}, err
	}
	s, err := parse(body)
	if err != nil {
		return stats{}, err
	}
	// The admin interface counts the requests that it receives, including this
	// one.
	before := c.asked
	c.asked = s.admin.requests
	if s.admin.knownTotal && before > 0 && s.admin.requests == before {
		return stats{}, errors.New("the statistics do not count the request that asks for them: they seem to be a cached copy")
	}
	return s, nil
}

// readConfig reads the configuration of the listeners if their list has changed
// since the last reading.
func (c *Counter) readConfig(ctx context.Context) error {
	list, err := c.get(ctx, "listeners", "format=json", statsLimit)
	if err != nil {
		return err
	}
	if err := parseListeners(list); err != nil {
		return err
	}
	if c.fresh = !bytes.Equal(list, c.list); !c.fresh {
		return nil
	}
	dumped, err := c.dumpListeners(ctx)
	if err != nil {
		return err
	}
	c.list, c.dumped = list, dumped
	return nil
}

// dumpListeners reads the configuration of all listeners. A mesh has hundreds
// of dynamic listeners, which are requested in groups.
func (c *Counter) dumpListeners(ctx context.Context) ([]configured, error) {
	static, err := c.dump(ctx, "resource=static_listeners")
	if err != nil {
		return nil, err
	}
	names, err := c.dump(ctx, "resource=dynamic_listeners&mask=name")
	if err != nil {
		return nil, err
	}
	all := static.listeners()
	for some := range slices.Chunk(names.dynamicNames(), namesAtOnce) {
		dynamic, err := c.dump(ctx, "resource=dynamic_listeners&name_regex="+url.QueryEscape(anyOf(some)))
		if err != nil {
			return nil, err
		}
		all = append(all, dynamic.listeners()...)
	}
	return all, nil
}

func (c *Counter) dump(ctx context.Context, query string) (dump, error) {
	body, err := c.get(ctx, "config_dump", query, statsLimit)
	if err != nil {
		return dump{}, err
	}
	return parseDump(body)
}

func (c *Counter) get(ctx context.Context, path, query string, limit int64) ([]byte, error) {
	return c.admin.At(path, query).Get(ctx, limit)
}

// StopAccepting makes Envoy send its clients away.
func (c *Counter) StopAccepting(ctx context.Context) error {
	return errors.Join(
		c.post(ctx, "healthcheck/fail", ""),
		c.post(ctx, "drain_listeners", "graceful&skip_exit"),
	)
}

// StartAccepting undoes StopAccepting, as far as Envoy can.
func (c *Counter) StartAccepting(ctx context.Context) error {
	return c.post(ctx, "healthcheck/ok", "")
}

// post makes a call that changes something. It succeeds if Envoy is gone.
func (c *Counter) post(ctx context.Context, path, query string) error {
	_, err := c.admin.At(path, query).Post(ctx, answerLimit)
	if fetch.Refused(err) {
		_, err = c.proxy.Left(err)
	}
	if err != nil {
		return fmt.Errorf("calling Envoy (LASTCALL_ENVOY_ADMIN): %w", err)
	}
	return nil
}
