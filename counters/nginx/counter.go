// Package nginx counts the requests in flight in nginx, by its stub_status page.
//
// In flight is Reading + Writing − 1: the requests of which nginx reads the
// header and those it works on, less the one that asks for the page. An idle
// keep-alive connection is Waiting, over HTTP/1 and HTTP/2 alike, and so is a
// connection that has not sent anything yet; neither is work. A WebSocket is a
// request until it is closed. What nginx passes on without HTTP (its stream and
// mail modules) is not on the page, and not counted.
//
// The numbers are in memory that all workers share, and that a reload keeps:
// a request in an old worker goes on counting until it ends.
//
// Arrived is the number of requests since nginx started, less the readings of
// this counter. Requests for the page by others, such as an exporter, cannot be
// told from work: where one asks more often than LASTCALL_QUIET, give it a
// longer interval.
//
// When nginx stops (`nginx -s quit`, SIGQUIT) its page goes first and its
// requests last. From then on the connections that remain are counted, see
// package gone, down to zero, which is nginx gone for good; LASTCALL_APP_PORT
// must be nginx's port for this, and the page in this pod.
//
// A page that does not count the request that asks for it is a copy that somebody
// stored, and an error. When the number of requests falls, another nginx answers;
// if the one before it had work in flight, that is unknown from then on, and an
// error, until all connections have ended that were open on LASTCALL_APP_PORT.
//
// Two limits. A worker that crashes leaves its requests on the page until nginx
// is started again, reloads not being enough; the drain then waits until its
// budget ends, with nginx's error log saying "exited on signal". And while a
// new binary takes over (SIGUSR2 to the master), the page shows one of the two:
// a change from one to the other is seen only when the number of requests falls.
//
// Open are the connections of all of nginx, less the one that asks for the page.
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

// pageLimit is the most that is read. The page has about 100 bytes.
const pageLimit = 4 << 10

// Counter is a drain.Counter.
type Counter struct {
	page  *fetch.Source
	proxy *proxygone.Proxy

	// turn holds a token while a reading is under way.
	turn     *semaphore.Weighted
	own      uint64 // readings of this nginx; guarded by turn
	last     status // at the last reading; guarded by turn
	previous proxygone.Previous
}

// New makes the counter, and asks nothing yet.
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
		turn: semaphore.NewWeighted(1),
	}, nil
}

// Count reads the page. It is an error when the page cannot be read, unless
// nginx is stopping or gone: then what is in flight are the connections that
// remain, and arrivals are not told.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	if err := c.turn.Acquire(ctx, 1); err != nil {
		return drain.Reading{}, fmt.Errorf("reading nginx's status: an earlier reading has not ended: %w", err)
	}
	defer c.turn.Release(1)
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
	// As many as at the last reading may also be those of an nginx that was
	// started again. It has one more at the next reading.
	if s.inFlight() < 0 || s.requests == c.last.requests {
		return drain.Reading{}, errors.New("the page does not count the request that asks for it: it seems to be a cached copy")
	}
	if s.requests < c.last.requests {
		c.own = 0 // another nginx answers, which knows of this reading only
		if c.last.inFlight() > 0 || c.previous.Busy() {
			c.previous.Replaced()
		}
	}
	c.own++
	c.last = s
	c.proxy.Readable()
	if err := c.previous.Left("nginx was restarted with requests in flight, and the page does not tell what the old one still has", c.connections); err != nil {
		return drain.Reading{}, err
	}
	return drain.Reading{
		InFlight: s.inFlight(),
		// A page from a second nginx at the same address may know of fewer readings.
		Arrived: s.requests - min(c.own, s.requests), HasArrived: true,
		Open: s.active - 1, HasOpen: true, // less the one that asks for the page
	}, nil
}

// connections returns those of the app's ports.
func (c *Counter) connections() (map[string]bool, error) {
	c.page.CloseIdleConnections() // the page may be on the app's port
	return c.proxy.Open()
}
