// Package nginx counts the requests in flight in nginx, using its stub_status
// page.
//
// The number in flight is Reading + Writing − 1: the requests whose header
// nginx is reading and those that it is processing, without the request for the
// page. Waiting counts idle keep-alive connections, over HTTP/1 and HTTP/2, and
// connections that have not sent anything yet; neither are work. A WebSocket is
// a request until it is closed. What nginx forwards without HTTP (its stream
// and mail modules) is not on the page, and is not counted.
//
// All workers share the memory that holds the numbers, and a reload keeps it: a
// request in an old worker still counts until it ends.
//
// Arrived is the number of requests since nginx started, without the readings
// of this counter. Requests for the page by others, such as an exporter, cannot
// be distinguished from work. If an exporter requests it more often than
// LASTCALL_QUIET, give it a longer interval.
//
// When nginx stops (`nginx -s quit`, SIGQUIT), its page disappears first and
// its requests end last. From then on, the remaining connections are counted
// (see package proxygone) down to zero, which means that nginx is gone for
// good. For this, LASTCALL_APP_PORT must be nginx's port, and the page must be
// in this pod.
//
// A page that does not count its own request is a cached copy, and an error. If
// the number of requests falls, another nginx answers. If the one before had
// work in flight, the rest of that work is not known: this is an error until
// all connections that were open on LASTCALL_APP_PORT have ended.
//
// There are two limits. A worker that crashes leaves its requests on the page
// until nginx is started again; a reload is not enough. The drain then waits
// until its budget ends, and nginx's error log reports "exited on signal". And
// while a new binary takes over (SIGUSR2 to the master), the page shows one of
// the two. A change from one to the other is noticed only if the number of
// requests falls.
//
// Open is the number of connections of all of nginx, without the one that
// requests the page.
package nginx

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/semaphore"

	"lastcall/drain"
	"lastcall/internal/fetch"
	"lastcall/internal/procnet"
	"lastcall/internal/proxygone"
)

// Config is the counter's part of the environment.
type Config struct {
	Status    string `envconfig:"LASTCALL_NGINX_STATUS" default:"http://127.0.0.1:8080/stub_status" desc:"nginx's stub_status page, or unix:///path:/page of its socket; lastcall's own request is not counted" secret:"url"`
	CAFile    string `envconfig:"LASTCALL_NGINX_CA_FILE" desc:"PEM file of authorities to trust for LASTCALL_NGINX_STATUS, besides the system's"`
	TokenFile string `envconfig:"LASTCALL_NGINX_TOKEN_FILE" desc:"file of a bearer token that is sent to LASTCALL_NGINX_STATUS"`
}

// pageLimit bounds how many bytes are read. The page has about 100 bytes.
const pageLimit = 4 << 10

// Counter is a drain.Counter.
type Counter struct {
	page  *fetch.Source
	proxy *proxygone.Proxy

	// busy holds a token during a reading.
	busy     *semaphore.Weighted
	own      uint64 // readings since this nginx started; guarded by busy
	last     status // at the last reading; guarded by busy
	previous proxygone.Previous
}

// New returns a counter. It requests nothing yet.
func New(cfg Config, pod drain.Pod) (*Counter, error) {
	page, err := fetch.Open(fetch.Settings{
		Variable: "LASTCALL_NGINX_STATUS", Address: cfg.Status, Example: "http://127.0.0.1:8080/stub_status",
		Prefix: "LASTCALL_NGINX", CAFile: cfg.CAFile, TokenFile: cfg.TokenFile,
	})
	if err != nil {
		return nil, err
	}
	return &Counter{
		page: page,
		proxy: &proxygone.Proxy{
			Local:    page.Local(pod.IP),
			PagePort: page.Port(),
			AppPorts: pod.AppPorts,
			Sockets:  procnet.Kernel(),
		},
		busy: semaphore.NewWeighted(1),
	}, nil
}

// Count reads the page. It returns an error if the page cannot be read, unless
// nginx is stopping or gone: then the remaining connections count as in flight,
// and arrivals are not reported.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.busy.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("reading nginx's status: an earlier reading has not ended: %w", err)
	}
	defer c.busy.Release(1)
	r, err := c.read(ctx)
	if fetch.Refused(err) {
		r.InFlight, err = c.proxy.Left(err)
	}
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading nginx's status (LASTCALL_NGINX_STATUS): %w", err)
	}
	return r, nil
}

func (c *Counter) read(ctx context.Context) (drain.Reading, error) {
	body, err := c.page.Get(ctx, pageLimit)
	if err != nil {
		return drain.Reading{}, err
	}
	s, err := parse(body)
	if err != nil {
		return drain.Reading{}, err
	}
	// If there are as many requests as at the last reading, nginx may also have
	// been restarted. Then there is one more at the next reading.
	if s.inFlight() < 0 || s.requests == c.last.requests {
		return drain.Reading{}, errors.New("the page does not count the request that asks for it: it seems to be a cached copy")
	}
	if s.requests < c.last.requests {
		c.own = 0 // another nginx answers, which has seen only this reading
		if c.last.inFlight() > 0 || c.previous.Busy() {
			c.previous.Replaced()
		}
	}
	c.own++
	c.last = s
	c.proxy.Readable()
	if err := c.previous.Left("nginx was restarted with requests in flight, and the page does not show what the old one still has", c.connections); err != nil {
		return drain.Reading{}, err
	}
	return drain.Reading{
		InFlight: s.inFlight(),
		// A page from a second nginx at the same address may know of fewer readings.
		Arrived: s.requests - min(c.own, s.requests), HasArrived: true,
		Open: s.active - 1, HasOpen: true, // without the connection that requests the page
	}, nil
}

// connections returns the open connections on the app's ports.
func (c *Counter) connections() (map[string]bool, error) {
	c.page.CloseIdleConnections() // the page may be on the app's port
	return c.proxy.Open()
}
