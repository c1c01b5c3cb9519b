package eureka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	client "github.com/ArthurHlt/go-eureka-client/eureka"

	"lastcall/internal/pace"
)

// requestLimit is the timeout of one request. It leaves room in the budget for
// another try if a server hangs. Overloaded servers have been seen to take 4 s.
const requestLimit = 5 * time.Second

// peer is one Eureka server.
type peer struct {
	url       string        // its service URL, without credentials and without a trailing slash
	user      *url.Userinfo // nil: none
	transport *http.Transport
	limit     time.Duration // of one request
	busy      pace.Busy
}

// name identifies an instance. It includes the application, because instance
// ids need only be unique within an application.
type name struct{ app, id string }

func (n name) String() string { return n.app + "/" + n.id }

func (n name) compare(o name) int { return cmp.Or(cmp.Compare(n.app, o.app), cmp.Compare(n.id, o.id)) }

func (n name) path() string { return "apps/" + url.PathEscape(n.app) + "/" + url.PathEscape(n.id) }

// call makes one call through the client library, and passes a 2xx answer to
// read. Everything else is an error. Answers other than 2xx are a statusError;
// they are neither retried nor followed.
func (p *peer) call(ctx context.Context, method, path, accept string, read func(http.Header, *bounded) error) error {
	return p.do(ctx, method, path, accept, nil, read)
}

// send makes a call with a JSON body. Its answer must be empty.
func (p *peer) send(ctx context.Context, method, path string, body []byte) error {
	return p.do(ctx, method, path, asJSON, body, nothing)
}

func (p *peer) do(ctx context.Context, method, path, accept string, body []byte, read func(http.Header, *bounded) error) error {
	// A cancellation is always sent: there may be no time for another try.
	if err := p.busy.Err(); err != nil && (method != http.MethodDelete || strings.Contains(path, "/status")) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	// The library takes no context, retries by itself, and is given only an
	// *http.Transport. So each call gets a client of its own, with a transport
	// that hands the library's request to the round tripper.
	c := &roundTripper{ctx: ctx, peer: p, accept: accept, read: read}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(true)
	transport.RegisterProtocol("http", c)
	transport.RegisterProtocol("https", c)
	library := client.NewClient([]string{p.url})
	library.SetTransport(transport)
	library.CheckRetry = func(_ *client.Cluster, _ int, _ http.Response, err error) error { return err }

	var err error
	switch method {
	case http.MethodGet:
		_, err = library.Get(path)
	case http.MethodPut:
		_, err = library.Put(path, nil)
	case http.MethodPost:
		_, err = library.Post(path, body)
	case http.MethodDelete:
		_, err = library.Delete(path)
	}
	if inURL := (*url.Error)(nil); errors.As(err, &inURL) {
		err = inURL.Err
	}
	if c.refused != nil {
		err = c.refused // the library treats some of these as success
	}
	if ended := ctx.Err(); err != nil && ended != nil && !errors.Is(err, ended) {
		err = fmt.Errorf("%w: %w", ended, err)
	}
	return err
}

const (
	asJSON = "application/json"
	asXML  = "application/xml"
)

// seen is an instance as a server holds it now.
type seen struct {
	instance
	// age is how long ago the server last changed the instance, by the server's
	// own clock. It is negative if the server does not say.
	age time.Duration
}

// instance reads one instance. The answer does not come from the cache that
// serves clients.
func (p *peer) instance(ctx context.Context, n name) (seen, error) { return p.one(ctx, n.path()) }

// instanceByID does the same if the application is not known.
func (p *peer) instanceByID(ctx context.Context, id string) (seen, error) {
	return p.one(ctx, "instances/"+url.PathEscape(id))
}

func (p *peer) one(ctx context.Context, path string) (seen, error) {
	s := seen{age: -1}
	found := false
	err := p.call(ctx, http.MethodGet, path, asJSON, func(header http.Header, body *bounded) error {
		err := scanJSON(body, "instance", func(i instance) bool {
			s.instance, found = i, true
			return true
		})
		if now, bad := http.ParseTime(header.Get("Date")); bad == nil {
			s.age = max(now.Sub(s.Updated.time()), 0)
		}
		return err
	})
	if err == nil && !found {
		err = errors.New("the answer holds no instance")
	}
	return s, err
}

// list is one of the answers that clients read.
type list struct {
	path string // under the service URL
	root string // name of the outermost element or member
}

func allApps() list { return list{"apps", "applications"} }

func changes() list { return list{"apps/delta", "applications"} }

func oneApp(app string) list { return list{"apps/" + url.PathEscape(app), "application"} }

// each visits the instances of a list as long as visit returns true. It returns
// the number of uncompressed bytes that were read.
func (p *peer) each(ctx context.Context, l list, accept string, visit func(instance) bool) (size int, err error) {
	err = p.call(ctx, http.MethodGet, l.path, accept, func(_ http.Header, body *bounded) error {
		defer func() { size = body.total }()
		scan := scanJSON
		if accept == asXML {
			scan = scanXML
		}
		return scan(body, l.root, func(i instance) bool {
			body.since = 0
			return visit(i)
		})
	})
	return size, err
}

// override sets a status override, which also shows as the status unless the
// app itself says DOWN or STARTING afterwards.
func (p *peer) override(ctx context.Context, n name, status string) error {
	return p.call(ctx, http.MethodPut, n.path()+"/status?value="+status, asJSON, nothing)
}

// removeOverride removes the override and sets the status. If status is empty,
// the instance is UNKNOWN until the app's next heartbeat, which is answered
// with 404, so that its client registers again with the app's own status.
func (p *peer) removeOverride(ctx context.Context, n name, status string) error {
	path := n.path() + "/status"
	if status != "" {
		path += "?value=" + status
	}
	return p.call(ctx, http.MethodDelete, path, asJSON, nothing)
}

// cancel removes the instance and its override.
func (p *peer) cancel(ctx context.Context, n name) error {
	return p.call(ctx, http.MethodDelete, n.path(), asJSON, nothing)
}

// nothing accepts the empty body of a server that has carried out a request. A
// server that returns a page instead is not a Eureka server.
func nothing(_ http.Header, body *bounded) error {
	switch n, err := io.ReadFull(body, make([]byte, 1)); {
	case n > 0:
		return errShape
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// anything accepts the answer to a heartbeat: empty, or the instance if the
// server holds newer data than the client.
func anything(_ http.Header, body *bounded) error {
	_, err := io.Copy(io.Discard, io.LimitReader(body, maxInstance))
	return err
}

// check returns nil if there is a Eureka server at the URL. It is called when
// an instance is not found, because a wrong path answers 404 too.
func (p *peer) check(ctx context.Context) error {
	_, err := p.each(ctx, changes(), asJSON, func(instance) bool { return false })
	switch {
	case hasStatus(err, http.StatusForbidden):
		return nil // a Eureka server with apps/delta switched off
	case hasStatus(err, http.StatusNotFound):
		return errNotEureka
	}
	return err
}

var errNotEureka = errors.New("no Eureka server at this path: service URLs usually end in /eureka, or /eureka/v2 for Netflix' own (status 404)")
