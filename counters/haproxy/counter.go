// Package haproxy counts the requests in flight in HAProxy, using its
// statistics: the CSV page, or the runtime socket of a worker or, preferably,
// of the master.
//
// # What is counted
//
// For a frontend in mode http, the open streams on its HTTP/1 and HTTP/2
// connections are counted. Each stream is a request, from its first byte to the
// last byte of its answer. Other numbers are not exact: the sessions that
// HAProxy shows are connections and include idle keep-alive ones, and requests
// minus responses do not add up (a redirect is not counted as a response, and
// an incomplete request is not counted as a request). A WebSocket is a request
// until it is closed. Connections in their TLS handshake count, and so do those
// of HTTP/3, because HAProxy does not show their streams. For a frontend in
// mode tcp, the open connections are counted. HAProxy 2.6 reports all of this.
// Older versions may lack the numbers, which is an error.
//
// Arrived is the number of requests, or of connections in mode tcp, without the
// requests that HAProxy has answered itself: statistics, health, redirects.
//
// # What is not counted
//
// A frontend is not counted if HAProxy itself has answered all of its requests:
// it serves statistics, metrics or health. LASTCALL_HAPROXY_FRONTENDS replaces
// this rule: then only the frontends whose name matches are counted. It is
// needed if HAProxy itself processes requests, for instance in a Lua service.
// It is also needed if a backend section serves the statistics, because their
// other readers are otherwise taken for work. In both cases, the requests for
// the page are not counted, through any frontend: the statistics always show
// one of them, as an open stream.
//
// # What is missing
//
// `stats scope` hides frontends from the page. So the HTML page is read too:
// its head shows how many connections the whole process has. If these are more
// than the frontends on the page have, that is an error. A connection that is
// opened between the two pages could make up for a hidden one. So a page without
// work in flight is only used if none was opened since the page before it, or if
// two in a row agree. The sockets hide nothing. With LASTCALL_HAPROXY_FRONTENDS the HTML page is not read; instead,
// each part of the expression, as in `^(web|api)$`, must match a frontend. A
// page that does not count its own request is a cached copy, and an error.
//
// # Reload and stop
//
// A reload starts a new worker, whose statistics begin at zero. The old worker
// finishes its work, which is not in these statistics. Only the master knows
// both. With `unix://` and the path of its socket (`haproxy -W -S
// PATH,mode,660`), the workers are added up, and the numbers stay correct
// through reloads and an orderly stop (SIGUSR1). Lastcall finds out by a
// command whether a socket is the master's or a worker's.
//
// With the CSV page or a worker's socket, a reload shows as another process id,
// or as numbers that are lower than before. If work was in flight at the last
// reading, its state is unknown from then on. That is an error until the kernel
// shows that the work is over: until all connections that were open on
// LASTCALL_APP_PORT after the reload have ended. This does not see requests on
// other ports, and idle connections can make it take long. Without
// LASTCALL_APP_PORT it does not end. A reload before the first reading is not
// seen at all, nor is work that came to the old worker between the last reading
// and the reload. Use the master's socket if HAProxy is reloaded.
//
// When HAProxy stops, the page and the worker's socket disappear first, and its
// requests end last. From then on, the remaining connections are counted (see
// package proxygone) down to zero, which means that HAProxy is gone for good.
// For this, LASTCALL_APP_PORT must be HAProxy's port, and the page must be in
// this pod.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"golang.org/x/sync/semaphore"

	"lastcall/drain"
	"lastcall/internal/fetch"
	"lastcall/internal/procnet"
	"lastcall/internal/proxygone"
)

// Config is the counter's part of the environment.
type Config struct {
	Stats     string `envconfig:"LASTCALL_HAPROXY_STATS" default:"http://127.0.0.1:8404/;csv" desc:"HAProxy's CSV page, or unix:///path of its runtime socket; the master's socket stays right through reloads" secret:"url"`
	Frontends string `envconfig:"LASTCALL_HAPROXY_FRONTENDS" desc:"a regular expression: which frontends to count (all but those that only HAProxy itself answers, when unset)"`
	CAFile    string `envconfig:"LASTCALL_HAPROXY_CA_FILE" desc:"PEM file of authorities to trust for LASTCALL_HAPROXY_STATS, besides the system's"`
	TokenFile string `envconfig:"LASTCALL_HAPROXY_TOKEN_FILE" desc:"file of a bearer token that is sent to LASTCALL_HAPROXY_STATS"`
}

// Counter is a drain.Counter.
type Counter struct {
	page      *page // nil if there is a socket
	socket    socket
	frontends *named // nil when unset
	proxy     *proxygone.Proxy

	// busy holds a token during a reading. It guards everything below.
	busy     *semaphore.Weighted
	scrape   scrapeRequest
	arrived  arrivals
	previous previousWorker
}

// New returns a counter. It requests nothing yet.
func New(cfg Config, pod drain.Pod) (*Counter, error) {
	c := &Counter{
		proxy: &proxygone.Proxy{AppPorts: pod.AppPorts, Sockets: procnet.Kernel()},
		busy:  semaphore.NewWeighted(1),
	}
	if err := errors.Join(c.setStats(cfg, pod), c.setFrontends(cfg.Frontends)); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Counter) setStats(cfg Config, pod drain.Pod) error {
	const variable, examples = "LASTCALL_HAPROXY_STATS", "http://127.0.0.1:8404/;csv or unix:///run/haproxy/master.sock"
	if strings.HasPrefix(cfg.Stats, "unix:") {
		u, err := url.Parse(cfg.Stats)
		if err != nil || u.Host != "" || u.User != nil || !filepath.IsAbs(u.Path) {
			return fmt.Errorf("%s must be unix:// and an absolute path, or an http:// or https:// URL, such as %s", variable, examples)
		}
		if cfg.CAFile != "" || cfg.TokenFile != "" {
			return fmt.Errorf("LASTCALL_HAPROXY_CA_FILE and LASTCALL_HAPROXY_TOKEN_FILE are for a page, and %s is the path of a runtime socket", variable)
		}
		c.socket.path = u.Path
		c.proxy.Local = true
		return nil
	}
	page, err := openPage(fetch.Settings{
		Variable: variable, Address: cfg.Stats, Example: examples,
		Prefix: "LASTCALL_HAPROXY", CAFile: cfg.CAFile, TokenFile: cfg.TokenFile,
	})
	if err != nil {
		return err
	}
	c.page = page
	c.proxy.Local = page.csv.Local(pod.IP)
	c.proxy.PagePort = page.csv.Port()
	return nil
}

func (c *Counter) setFrontends(pattern string) (err error) {
	if pattern == "" {
		return nil
	}
	if c.frontends, err = compile(pattern); err != nil {
		return fmt.Errorf("LASTCALL_HAPROXY_FRONTENDS must be a regular expression, such as ^(web|api)$: %w", err)
	}
	return nil
}

// Count reads the statistics. It returns an error if they cannot be read, or do
// not show what a worker from before a reload still has, unless HAProxy is
// stopping or gone: then the remaining connections count as in flight, and
// arrivals are not reported.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.busy.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("reading HAProxy's statistics: an earlier reading has not ended: %w", err)
	}
	defer c.busy.Release(1)
	r, err := c.read(ctx)
	if fetch.Refused(err) {
		if r.InFlight, err = c.proxy.Left(err); err == nil && r.InFlight == 0 {
			c.previous = previousWorker{} // the previous worker is gone too
		}
	}
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading HAProxy's statistics (LASTCALL_HAPROXY_STATS): %w", err)
	}
	return r, nil
}

func (c *Counter) read(ctx context.Context) (drain.Reading, error) {
	workers, complete, err := c.ask(ctx)
	if err != nil {
		return drain.Reading{}, err
	}
	c.proxy.Readable()
	if c.frontends != nil {
		var all []frontend
		for _, w := range workers {
			all = append(all, w.frontends...)
		}
		if err := c.frontends.matchesNone(all); err != nil {
			return drain.Reading{}, err
		}
	}
	replaced, stored := false, false
	if !complete {
		replaced, stored = c.previous.replaced(workers[0], c.page != nil)
	}
	if stored && !replaced {
		return drain.Reading{}, errStored
	}
	var inFlight int64
	for _, w := range workers {
		inFlight += c.add(w)
	}
	if c.page != nil {
		own, err := c.own(workers[0], replaced)
		if err != nil {
			return drain.Reading{}, err
		}
		inFlight -= own
	}
	if !complete {
		if err := c.previous.look(workers[0], inFlight, replaced, c.open); err != nil {
			return drain.Reading{}, err
		}
	}
	if stored {
		return drain.Reading{}, fmt.Errorf("%w, unless HAProxy was reloaded", errStored)
	}
	arrived := c.arrived.sum(workers, c.counts)
	return drain.Reading{InFlight: inFlight, Arrived: arrived - min(c.scrape.own, arrived), HasArrived: true}, nil
}

// own returns how many of the counted requests are requests for the page.
func (c *Counter) own(w worker, replaced bool) (int64, error) {
	last := c.previous.last
	if replaced {
		last = nil
	}
	asked := c.page.asked
	c.page.asked = 0
	return c.scrape.counted(w.frontends, last, asked, c.counts)
}

// ask returns the statistics of each process that can be asked. complete
// reports whether these are all processes.
func (c *Counter) ask(ctx context.Context) (workers []worker, complete bool, err error) {
	if c.page == nil {
		return c.socket.read(ctx)
	}
	w, err := c.page.read(ctx, c.frontends == nil)
	return []worker{w}, false, err
}

// counts reports whether a frontend is counted.
func (c *Counter) counts(f frontend) bool {
	if c.frontends != nil {
		return c.frontends.MatchString(f.name)
	}
	return !f.answersItself()
}

// add returns what one process has in flight.
func (c *Counter) add(w worker) (sum int64) {
	for _, f := range w.frontends {
		if c.counts(f) {
			sum += f.inFlight()
		}
	}
	return sum
}

// names lists the first few frontends, for people.
func names(frontends []frontend) string {
	const most = 10
	var list []string
	for i, f := range frontends {
		if i == most {
			list = append(list, fmt.Sprintf("and %d more", len(frontends)-most))
			break
		}
		list = append(list, f.name)
	}
	return strings.Join(list, ", ")
}

// open returns the open connections on the app's ports.
func (c *Counter) open() (map[string]bool, error) {
	if c.page != nil { // the page may be on the app's port
		c.page.csv.CloseIdleConnections() // this also closes those of the HTML page
	}
	return c.proxy.Open()
}
