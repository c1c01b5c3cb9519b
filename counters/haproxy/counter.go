// Package haproxy counts the requests in flight in HAProxy, by its statistics:
// the CSV page, or the runtime socket of a worker or, best, of the master.
//
// # What is counted
//
// Of a frontend in mode http, the streams that are open on its HTTP/1 and
// HTTP/2 connections: each is a request, from its first byte to the last one of
// its answer. The sessions that HAProxy shows are connections, idle keep-alive
// ones among them, and requests less responses do not come out even (a redirect
// is no response, a request that is not complete no request). A WebSocket is a
// request until it is closed. Connections in their TLS handshake count, and
// those of HTTP/3, of which HAProxy does not tell the streams. Of a frontend in
// mode tcp, the open connections. HAProxy 2.6 tells all this; older versions may
// lack the numbers, which is an error.
//
// Arrived is the number of requests, or connections in mode tcp, less those
// requests that HAProxy has answered itself: statistics, health, redirects.
//
// # What is not
//
// A frontend that has answered all of its requests itself is one for statistics,
// metrics or health, and not counted. LASTCALL_HAPROXY_FRONTENDS replaces this
// rule: then the frontends whose name matches are counted, and no others. It is
// needed where HAProxy itself works on requests, in a Lua service for instance,
// and where a backend section has the statistics, whose other readers are taken
// for work otherwise. The requests for the page are not counted in either
// case, whichever frontend they come through: one is always in the statistics, as
// an open stream.
//
// # What is missing
//
// `stats scope` hides frontends from the page. So the page for people is read as
// well, whose head tells how many connections the whole process has: more than
// the frontends on the page account for are an error. The sockets hide nothing.
// With LASTCALL_HAPROXY_FRONTENDS nothing is looked up; each part of it, as in
// `^(web|api)$`, must match a frontend then. A page that does not count the
// request that asks for it is a copy that somebody stored, and an error.
//
// # Reload and stop
//
// A reload starts a new worker, whose statistics begin at zero; the old one
// works on what it has, and is not in them. Only the master knows of both: with
// `unix://` and the path of its socket (`haproxy -W -S PATH,mode,660`), which is
// told from a worker's by asking, the workers are added up, and all stays right
// through reloads and an orderly stop (SIGUSR1).
//
// With the CSV page or a worker's socket, a reload shows in another process id,
// or in numbers that are less than before. When work was in flight at the
// last reading, it is unknown from then on, and an error, until the kernel says
// that it is over: until all connections that were open on LASTCALL_APP_PORT
// after the reload have ended. Requests on other ports are not seen by this, and
// idle connections can make it long; without LASTCALL_APP_PORT it does not end.
// A reload before the first reading is not seen at all, nor is work that came to
// the old worker between the last reading and the reload. Use the master's socket
// where HAProxy is reloaded.
//
// When HAProxy stops, page and worker's socket go first and its requests last.
// From then on the connections that remain are counted, see package gone, down
// to zero, which is HAProxy gone for good; LASTCALL_APP_PORT must be its port
// for this, and the page in this pod.
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
	page      *page // nil where there is a socket
	socket    socket
	frontends *named // nil when unset
	proxy     *proxygone.Proxy

	// turn holds a token while a reading is under way, and guards what follows.
	turn     *semaphore.Weighted
	scrape   scrapeRequest
	arrived  arrivals
	previous previousWorker
}

// New makes the counter, and asks nothing yet.
func New(cfg Config, pod drain.Pod) (*Counter, error) {
	c := &Counter{
		proxy: &proxygone.Proxy{AppPorts: pod.AppPorts, Sockets: procnet.Kernel()},
		turn:  semaphore.NewWeighted(1),
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

// Count reads the statistics. It is an error when they cannot be read, or do
// not tell what a worker from before a reload still has, unless HAProxy is
// stopping or gone: then what is in flight are the connections that remain, and
// arrivals are not told.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.turn.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("reading HAProxy's statistics: an earlier reading has not ended: %w", err)
	}
	defer c.turn.Release(1)
	r, err := c.read(ctx)
	if fetch.Refused(err) {
		if r.InFlight, err = c.proxy.Left(err); err == nil && r.InFlight == 0 {
			c.previous = previousWorker{} // gone as well
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

// own returns how many of the counted requests are the one for the page.
func (c *Counter) own(w worker, replaced bool) (int64, error) {
	last := c.previous.last
	if replaced {
		last = nil
	}
	asked := c.page.asked
	c.page.asked = 0
	return c.scrape.counted(w.frontends, last, asked, c.counts)
}

// ask returns what each process says that can be asked, and whether these are
// all there are.
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

// names lists frontends for people, the first few of them.
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

// open returns the connections of the app's ports.
func (c *Counter) open() (map[string]bool, error) {
	if c.page != nil { // which may be on the app's port
		c.page.csv.CloseIdleConnections() // and so those for the page for people
	}
	return c.proxy.Open()
}
