// Package prometheus reads what is in flight from a gauge that the app, or
// something beside it, exposes to Prometheus.
//
// # What is counted
//
// The sum of the series that LASTCALL_PROMETHEUS_METRIC selects, less its
// offset. They must count requests and not connections, so that idle keep-alive
// connections are no work. Where they count the scrape itself too, a label
// excludes it (`http_requests_in_flight{path!="/metrics"}`), or an offset
// (`http_server_requests_active_seconds_count - 1`). A sum below the offset is
// an error and not zero: the scrape is not in it, so that the offset would
// subtract a client's request.
//
// Arrived is the sum of the series that LASTCALL_PROMETHEUS_TOTAL selects, a
// counter that grows with each request. Without it, arrivals are not seen here.
//
// # What is missing
//
// A gauge with labels has no series before its first request unless the app
// makes them when it starts. Nothing selected is zero in three cases only, in
// which it is known that nothing can be in flight:
//
//   - The page declares the metric (# TYPE), and has no series of it.
//   - There are series, and the != and !~ of the selector exclude all of them,
//     while its = and =~ match at least one.
//   - The app has no open connection on LASTCALL_APP_PORT, and
//     LASTCALL_PROMETHEUS_TOTAL, if set, has counted nothing either. A name with
//     a typing error is not told apart from a metric that will come with the
//     first request, so the log has a warning.
//
// With an offset it is always an error: the scrape alone makes a series.
//
// # Stale pages
//
// Samples whose timestamp is older than 5 s, or more than 5 s ahead, are an
// error, and so are answers of a cache. A page without timestamps, from a
// Pushgateway for instance, cannot be told from a fresh one.
//
// # Stop
//
// When the page refuses connections, what remains of the app's connections is
// counted, see package gone, down to zero, which is an app gone for good;
// LASTCALL_APP_PORT must be set for this, and the page must be in this pod.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"mime"
	"sync"
	"time"

	"lastcall/drain"
	"lastcall/internal/fetch"
	"lastcall/internal/procnet"
	"lastcall/internal/proxygone"
)

// Config is the counter's part of the environment.
type Config struct {
	URL       string `envconfig:"LASTCALL_PROMETHEUS_URL" desc:"the exposition to read, userinfo allowed: http://127.0.0.1:8080/metrics, or unix:///SOCKET:/metrics" secret:"url"`
	Metric    string `envconfig:"LASTCALL_PROMETHEUS_METRIC" desc:"a selector in it, whose matching series are added: http_server_active_requests{job=\"web\"}; with an offset where it counts the scrape itself: http_server_requests_active_seconds_count - 1"`
	Total     string `envconfig:"LASTCALL_PROMETHEUS_TOTAL" desc:"a selector of a counter that grows with each request, and not with scrapes: http_requests_total{path!=\"/metrics\"}"`
	CAFile    string `envconfig:"LASTCALL_PROMETHEUS_CA_FILE" desc:"PEM file of certificate authorities to trust besides the system's; read again for each connection"`
	TokenFile string `envconfig:"LASTCALL_PROMETHEUS_TOKEN_FILE" desc:"file of a bearer token for the exposition; read again for each call"`
}

// maxPage is how long an exposition may be, in bytes. Large apps expose some
// hundred KiB.
const maxPage = 4 << 20

// accept asks for the text format, version 0.0.4, which every exporter can
// give. Some prefer OpenMetrics or protocol buffers where nothing is asked for.
const accept = "text/plain;version=0.0.4;q=1,text/plain;q=0.9,application/openmetrics-text;q=0.5,*/*;q=0.1"

// Counter is a drain.Counter.
type Counter struct {
	source      *fetch.Source
	metric      query
	total       *selector     // nil when unset
	connections drain.Counter // of the app; nil when they are not known
	app         *proxygone.Proxy
	absent      sync.Once // the warning that the metric is not there
	scrapes     scrapes   // of the total
}

// New makes the counter, and calls nobody yet. connections counts the app's open
// connections, for a metric that is not there; nil when they are not known.
func New(cfg Config, pod drain.Pod, connections drain.Counter) (*Counter, error) {
	source, badSource := fetch.Open(fetch.Settings{
		Variable: "LASTCALL_PROMETHEUS_URL", Address: cfg.URL, Example: "http://127.0.0.1:8080/metrics",
		Prefix: "LASTCALL_PROMETHEUS", CAFile: cfg.CAFile, TokenFile: cfg.TokenFile,
	})
	metric, badMetric := parseQuery(cfg.Metric)
	if badMetric != nil {
		badMetric = fmt.Errorf("LASTCALL_PROMETHEUS_METRIC=%.80q: %w; it must be a metric's name, with label matchers in braces if need be, and an offset if it counts the scrape itself, such as http_server_active_requests{job=\"web\"} - 1", cfg.Metric, badMetric)
	}
	var total *selector
	var badTotal error
	if cfg.Total != "" {
		s, err := parseSelector(cfg.Total)
		if err != nil {
			badTotal = fmt.Errorf("LASTCALL_PROMETHEUS_TOTAL=%.80q: %w; it must be the name of a counter that grows with each request, with label matchers in braces if need be, such as http_requests_total{path!=\"/metrics\"}", cfg.Total, err)
		}
		total = &s
	}
	if err := errors.Join(badSource, badMetric, badTotal); err != nil {
		return nil, err
	}
	return &Counter{
		source: source.With("Accept", accept), metric: metric, total: total, connections: connections,
		app: &proxygone.Proxy{
			What:     "the app",
			Local:    source.Local(pod.IP),
			PagePort: source.Port(),
			AppPorts: pod.AppPorts,
			Sockets:  procnet.Kernel(),
		},
	}, nil
}

// ReportsArrivals reports whether readings have arrivals.
func (c *Counter) ReportsArrivals() bool { return c.total != nil }

// Count adds the series that match. An exposition that cannot be had, or holds
// no matching series, or a value that counts nothing (negative, NaN, infinite),
// is an error, but for what the package says is zero. When the app is stopping
// or gone, what is in flight are the connections that remain, and arrivals are
// not told.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	page, err := c.source.Read(ctx, maxPage)
	if fetch.Refused(err) {
		left, err := c.app.Left(err)
		if err != nil {
			return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_URL: %w", err)
		}
		return drain.Reading{InFlight: left}, nil
	}
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_URL: %w", err)
	}
	c.app.Readable()
	e, err := newExposition(page.Body, openMetrics(page), time.Now())
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_URL: %w", err)
	}
	arrived, badTotal := c.arrived(ctx, e)
	r := drain.Reading{Arrived: arrived, HasArrived: c.total != nil && badTotal == nil}
	var missing *missingError
	r.InFlight, err = c.metric.inFlight(e)
	switch {
	case errors.As(err, &missing) && badTotal == nil:
		err = c.absentMetric(ctx, missing, r)
	case err == nil && r.InFlight > 0 && errors.As(badTotal, &missing):
		badTotal = nil // it will come with the first answer; until then there is work
	}
	if err != nil && badTotal == nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_METRIC=%s: %w", c.metric, err)
	}
	if badTotal != nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_TOTAL=%s: %w", c.total, badTotal)
	}
	return r, nil
}

// arrived returns how many requests have come. A total that is missing is an
// error that is a missingError, but for where it means that none has.
func (c *Counter) arrived(ctx context.Context, e exposition) (uint64, error) {
	if c.total == nil {
		return 0, nil
	}
	sum, err := c.total.sum(e)
	var missing *missingError
	if errors.As(err, &missing) {
		if missing.zero {
			return 0, nil
		}
		return 0, c.nobodyConnected(ctx, missing)
	}
	if err != nil {
		return 0, err
	}
	c.scrapes.look(ctx, uint64(sum), c.total)
	return uint64(sum), nil
}

// manyScrapes is how many readings in a row must raise the total by one for it
// to seem to count them.
const manyScrapes = 20

// scrapes notices a total that counts the requests for the page: with it, the
// pod would never be quiet.
type scrapes struct {
	mu   sync.Mutex
	last uint64
	row  int // readings in a row that raised it by one
}

func (s *scrapes) look(ctx context.Context, total uint64, selector *selector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := total == s.last+1
	s.last = total
	if !one {
		s.row = 0
		return
	}
	if s.row++; s.row == manyScrapes {
		slog.WarnContext(ctx, "prometheus: the total grows by one with each reading: it seems to count the requests for the page, so that the pod is never quiet; exclude them by a label",
			"total", selector.String())
	}
}

// openMetrics reports whether the answer says that it is in this format.
func openMetrics(page fetch.Page) bool {
	kind, _, _ := mime.ParseMediaType(page.Header.Get("Content-Type"))
	return kind == "application/openmetrics-text"
}

// absentMetric returns nil where a metric that is missing means that nothing is
// in flight. r has what has arrived.
func (c *Counter) absentMetric(ctx context.Context, missing *missingError, r drain.Reading) error {
	switch {
	case c.metric.offset > 0:
		return fmt.Errorf("%w; the offset %d says that the metric counts the request that asks for it, so it must be there", missing, c.metric.offset)
	case missing.zero:
		return nil
	case r.Arrived > 0:
		return fmt.Errorf("%w; LASTCALL_PROMETHEUS_TOTAL has counted %d requests, so it should be there", missing, r.Arrived)
	}
	if err := c.nobodyConnected(ctx, missing); err != nil {
		return err
	}
	c.absent.Do(func() {
		slog.WarnContext(ctx, "prometheus: the metric is not on the page: it counts as 0 as long as the app has no open connection on LASTCALL_APP_PORT, and is unknown otherwise; "+
			"this is right before an app's first request, and wrong if LASTCALL_PROMETHEUS_METRIC has a typing error", "metric", c.metric.String(), "reason", missing.Error())
	})
	return nil
}

// nobodyConnected returns an error unless it is known that the app has no open
// connection, so that no request can be in flight.
func (c *Counter) nobodyConnected(ctx context.Context, missing *missingError) error {
	switch {
	case missing.nothing:
		return missing
	case c.connections == nil:
		return fmt.Errorf("%w (with LASTCALL_APP_PORT set, it would count as 0 while the app has no open connection)", missing)
	}
	r, err := c.connections.Count(ctx)
	if err != nil {
		return fmt.Errorf("%w; whether the app has open connections is not known either: %w", missing, err)
	}
	if r.InFlight > 0 {
		return fmt.Errorf("%w; and the app has %d open connections", missing, r.InFlight)
	}
	return nil
}

// query is LASTCALL_PROMETHEUS_METRIC: a selector, and how many requests of
// those that it counts are the one for the page.
type query struct {
	selector
	offset int64
}

func (q query) String() string {
	if q.offset == 0 {
		return q.selector.String()
	}
	return fmt.Sprintf("%s - %d", q.selector, q.offset)
}

// inFlight returns the sum of the series, rounded up, less the offset.
func (q query) inFlight(e exposition) (int64, error) {
	sum, err := q.sum(e)
	if err != nil {
		return 0, err
	}
	n := int64(math.Ceil(sum)) - q.offset
	if n < 0 {
		return 0, fmt.Errorf("the sum is %v, less than the offset %d: the metric does not count the request that asks for it; leave the offset out", sum, q.offset)
	}
	return n, nil
}
