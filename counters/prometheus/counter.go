// Package prometheus reads what is in flight from a gauge that the app, or an
// exporter beside it, exposes to Prometheus.
//
// # What is counted
//
// The sum of the series that LASTCALL_PROMETHEUS_METRIC selects is counted,
// minus its offset. The series must count requests and not connections, because
// idle keep-alive connections are not work. If they also count the scrape
// itself, exclude it by a label (`http_requests_in_flight{path!="/metrics"}`)
// or by an offset (`http_server_requests_active_seconds_count - 1`). A sum
// below the offset is an error and not zero: it does not include the scrape, so
// the offset would subtract a client's request.
//
// Arrived is the sum of the series that LASTCALL_PROMETHEUS_TOTAL selects, a
// counter that grows with each request. Without it, this counter does not see
// arrivals.
//
// # What is missing
//
// A gauge with labels has no series before its first request, unless the app
// creates them when it starts. If nothing is selected, that means zero in only
// three cases, in which nothing can be in flight:
//
//   - The page declares the metric (# TYPE), and has no series of it.
//   - There are series, and the selector's = and =~ match at least one, but its
//     != and !~ exclude all of them.
//   - The app has no open connection on LASTCALL_APP_PORT, and
//     LASTCALL_PROMETHEUS_TOTAL, if set, has counted nothing either. A misspelled
//     name cannot be distinguished from a metric that will appear with the first
//     request, so a warning is logged.
//
// With an offset, a missing metric is always an error: the scrape alone creates
// a series.
//
// # Stale pages
//
// Samples with a timestamp older than 5 s, or more than 5 s in the future, are
// an error, and so are cached answers. A page without timestamps, from a
// Pushgateway for instance, cannot be distinguished from a fresh one.
//
// # Stop
//
// When the page refuses connections, the app's remaining connections are
// counted (see package proxygone) down to zero, which means that the app is
// gone for good. For this, LASTCALL_APP_PORT must be set, and the page must be
// in this pod.
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

// maxPage is the maximum length of an exposition in bytes. Large apps expose
// some hundred KiB.
const maxPage = 4 << 20

// accept asks for the text format, version 0.0.4, which every exporter
// supports. Without it, some send OpenMetrics or protocol buffers.
const accept = "text/plain;version=0.0.4;q=1,text/plain;q=0.9,application/openmetrics-text;q=0.5,*/*;q=0.1"

// Counter is a drain.Counter.
type Counter struct {
	source      *fetch.Source
	metric      query
	total       *selector     // nil if unset
	connections drain.Counter // of the app; nil if they are not known
	app         *proxygone.Proxy
	absent      sync.Once // for the warning that the metric is missing
	scrapes     scrapes   // of the total
}

// New returns a counter. It calls nobody yet. connections counts the app's open
// connections, for the case that the metric is missing; it is nil if they are
// not known.
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

// Count adds the matching series. It returns an error if the exposition cannot
// be read, has no matching series, or has a value that cannot be a number of
// requests (negative, NaN, infinite), except in the cases that the package
// comment defines as zero. If the app is stopping or gone, the remaining
// connections count as in flight, and arrivals are not reported.
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
		badTotal = nil // the total will appear with the first answer; until then there is work
	}
	if err != nil && badTotal == nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_METRIC=%s: %w", c.metric, err)
	}
	if badTotal != nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_TOTAL=%s: %w", c.total, badTotal)
	}
	return r, nil
}

// arrived returns how many requests have come. If the total is missing, the
// error is a missingError, unless that means that no request has come.
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

// manyScrapes is how many readings in a row must raise the total by one before
// it seems to count the readings.
const manyScrapes = 20

// scrapes detects a total that counts the requests for the page: with such a
// total, the pod would never be quiet.
type scrapes struct {
	mu   sync.Mutex
	last uint64
	row  int // how many readings in a row have raised it by one
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

// openMetrics reports whether the answer declares this format.
func openMetrics(page fetch.Page) bool {
	kind, _, _ := mime.ParseMediaType(page.Header.Get("Content-Type"))
	return kind == "application/openmetrics-text"
}

// absentMetric returns nil if a missing metric means that nothing is in flight.
// r contains the arrivals.
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

// nobodyConnected returns an error unless the app is known to have no open
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

// query is LASTCALL_PROMETHEUS_METRIC: a selector, and how many of the requests
// that it counts are requests for the page.
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

// inFlight returns the sum of the series, rounded up, minus the offset.
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
