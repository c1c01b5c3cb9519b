// Package prometheus reads what is in flight from a gauge that the app, or
// something beside it, exposes to Prometheus.
//
// The app must count requests and not connections, so that idle keep-alive
// connections are no work. Where it counts the scrape itself too, the selector
// leaves it out: `http_requests_in_flight{path!="/metrics"}`. A gauge with
// labels has no series before its first request unless the app makes them when
// it starts, and no series is an error and not zero.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"lastcall/drain"
	"lastcall/internal/fetch"
)

// Config is the counter's part of the environment.
type Config struct {
	URL    string `envconfig:"LASTCALL_PROMETHEUS_URL" desc:"the exposition to read, userinfo allowed: http://127.0.0.1:8080/metrics" secret:"url"`
	Metric string `envconfig:"LASTCALL_PROMETHEUS_METRIC" desc:"a selector in it, whose matching series are added: http_server_active_requests{job=\"web\"}"`
}

// maxPage is how long an exposition may be, in bytes. Large apps expose some
// hundred KiB.
const maxPage = 4 << 20

// Counter is a drain.Counter.
type Counter struct {
	url      string
	selector selector
	client   *http.Client
}

// New makes the counter, and calls nobody yet.
func New(cfg Config) (*Counter, error) {
	_, badURL := fetch.ParseURL("LASTCALL_PROMETHEUS_URL", cfg.URL, "http://127.0.0.1:8080/metrics")
	s, badMetric := parseSelector(cfg.Metric)
	if badMetric != nil {
		badMetric = fmt.Errorf("LASTCALL_PROMETHEUS_METRIC=%.80q: %w; it must be a metric's name, with label matchers in braces if need be, such as http_server_active_requests{job=\"web\"}", cfg.Metric, badMetric)
	}
	if err := errors.Join(badURL, badMetric); err != nil {
		return nil, err
	}
	client := fetch.NewClient()
	client.Transport = textOnly{client.Transport}
	return &Counter{url: cfg.URL, selector: s, client: client}, nil
}

// Count adds the series that match. It cannot tell arrivals. An exposition
// that cannot be had, or holds no matching series, or a value that counts
// nothing (negative, NaN, infinite), is an error.
func (c *Counter) Count(ctx context.Context) (drain.Reading, error) {
	page, err := fetch.Get(ctx, c.client, c.url, maxPage)
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_URL: %w", err)
	}
	n, err := c.selector.sum(page)
	if err != nil {
		return drain.Reading{}, fmt.Errorf("reading LASTCALL_PROMETHEUS_METRIC=%s: %w", c.selector, err)
	}
	return drain.Reading{InFlight: n}, nil
}

// textOnly asks for the text format, version 0.0.4, which every exporter can
// give. Some prefer OpenMetrics or protocol buffers where nothing is asked for.
type textOnly struct{ http.RoundTripper }

func (t textOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept", "text/plain;version=0.0.4;q=1,text/plain;q=0.9,*/*;q=0.1")
	return t.RoundTripper.RoundTrip(r)
}
