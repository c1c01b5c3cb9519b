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
// by its configuration, and by its statistics
// (`listener.<address>.http.<stat_prefix>…`), so that listeners with filter chains
// of both kinds come out right. Datagrams are not counted.
//
// Arrived is the number of requests, or plain connections, that have come, less
// the requests that a manager's health check filter has taken.
//
// # What is not
//
// The admin interface, which Envoy names `admin`. The listeners for statistics
// and readiness that Envoy Gateway (managers eg-ready-http and eg-stats-http),
// Contour (envoy-admin; stats on port 8002) and Istio (stats on port 15090, agent
// on 15021) set up. Internal listeners, whose clients are other listeners, and
// OUTBOUND ones, by which a pod in a mesh reaches others. Where nothing else is
// left to count, as on a mesh's gateways, OUTBOUND ones are counted.
//
// With LASTCALL_ENVOY_LISTENERS it is told what is counted instead: the HTTP
// managers whose stat_prefix matches, and the listeners whose name in the
// statistics matches (their stat_prefix, or their address with _ for :, such as
// 0.0.0.0_8443), with their managers. A listener of your own for readiness is
// left out by it: `^ingress_http$`. A name is matched anywhere in it unless ^ and
// $ are given.
//
// # What is missing
//
// /listeners is read with each reading, and /config_dump when the list or the
// names in the statistics have changed. They tell which listeners and managers
// there are, and which way their traffic goes. What is counted must have its
// statistics: if stats_matcher leaves one out, that is an error. Statistics that
// do not count the request that asks for them are a copy that somebody stored,
// and an error as well.
//
// # Hot restart
//
// The old process works on what it has. Envoy adds its statistics to those of the
// new one with each flush of them, every 5 s, and asks it for nothing in between.
// So what is in flight is an error until a flush has been seen, which shows in
// server.uptime; from then on each connection that the old process still has
// (server.parent_connections) counts as a request at least. Where readings flush
// the statistics (stats_flush_on_admin) they are exact.
//
// Open is the number of connections of the listeners that are counted, where all
// managers that are counted belong to them, and no old process has any.
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
// cannot be undone: from then on until it is started again, Envoy ends a growing
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

	// turn holds a token while a reading is under way, and guards what follows.
	turn    *semaphore.Weighted
	list    []byte       // Envoy's list of listeners, at the last reading
	dumped  []configured // their configuration
	fresh   bool         // it was read in this reading
	config  config       // the same, and listeners that are gone from it
	strange string       // the listeners that only the statistics have
	asked   uint64       // requests to the admin interface, at the last reading
	restart restart
}

// New makes the counter, and asks nothing yet.
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
		turn:      semaphore.NewWeighted(1),
		proxy: &proxygone.Proxy{
			Local:    admin.Local(pod.IP),
			PagePort: admin.Port(),
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
	if err := c.turn.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("reading Envoy's statistics: an earlier reading has not ended: %w", err)
	}
	defer c.turn.Release(1)
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
		// A connection that is kept stays with the old process after a hot
		// restart, which knows nothing of the new one.
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
		// A listener may have been changed so that the list of them is the same.
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
	// Each connection of a parent process may carry a request that is not in the
	// statistics yet.
	if r.InFlight = max(r.InFlight, parent); parent == 0 {
		r.Open, r.HasOpen = s.open(chosen)
	}
	return r, nil
}

// choose returns what is counted, and an error when the statistics lack
// something of it.
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
	// The admin interface counts the requests that it gets, this one among them.
	before := c.asked
	c.asked = s.admin.requests
	if s.admin.knownTotal && before > 0 && s.admin.requests == before {
		return stats{}, errors.New("the statistics do not count the request that asks for them: they seem to be a cached copy")
	}
	return s, nil
}

// readConfig reads the configuration of the listeners if the list of them is
// another than at the last reading.
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

// dumpListeners reads the configuration of all listeners. A mesh has hundreds of
// dynamic ones, which are asked for some at a time.
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

// post makes a call that changes something. One that is gone need not be told.
func (c *Counter) post(ctx context.Context, path, query string) error {
	_, err := c.admin.At(path, query).Post(ctx, answerLimit)
	if fetch.Refused(err) {
		_, err = c.proxy.Left(err)
	}
	if err != nil {
		return fmt.Errorf("telling Envoy (LASTCALL_ENVOY_ADMIN): %w", err)
	}
	return nil
}
