package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxBody limits how much of an answer is read, in bytes.
const maxBody = 8 << 20

// envoy is an Envoy's admin interface. It reads the same statistic, in the same
// way, as the shutdown manager that it represents.
type envoy struct {
	admin string // its address
	http  *http.Client
	query string
	sum   func(io.Reader) (int, error)
}

func (e *envoy) failHealthChecks(ctx context.Context) error {
	return call(ctx, e.http, http.MethodPost, e.admin+"/healthcheck/fail", nil)
}

func (e *envoy) connections(ctx context.Context) (open int, err error) {
	err = call(ctx, e.http, http.MethodGet, e.admin+e.query, func(body io.Reader) error {
		open, err = e.sum(body)
		return err
	})
	return open, err
}

// forGateway returns an envoy that reads the statistic that Envoy Gateway reads.
func forGateway(admin string, client *http.Client) *envoy {
	skipped := regexp.MustCompile(`admin|19001|19003|worker`)
	return &envoy{admin, client, "/stats?format=json&filter=" + url.QueryEscape(`^listener\..*\.downstream_cx_active$`), func(body io.Reader) (int, error) {
		var answer struct {
			Stats []struct {
				Name  string
				Value int
			}
		}
		if err := json.NewDecoder(body).Decode(&answer); err != nil {
			return 0, err
		}
		if len(answer.Stats) == 0 {
			return 0, errors.New("no stats found")
		}
		sum := 0
		for _, s := range answer.Stats {
			if !skipped.MatchString(s.Name) {
				sum += s.Value
			}
		}
		return sum, nil
	}}
}

// forContour returns an envoy that reads the statistic that Contour reads.
func forContour(admin string, client *http.Client) *envoy {
	const name = "envoy_http_downstream_cx_active"
	return &envoy{admin, client, "/stats/prometheus", func(body io.Reader) (int, error) {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(body)
		if err != nil {
			return 0, err
		}
		family := families[name]
		if family == nil {
			return 0, fmt.Errorf("there is no %s", name)
		}
		sum := 0
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetValue() == "ingress_http" || label.GetValue() == "ingress_https" {
					sum += int(metric.GetGauge().GetValue())
				}
			}
		}
		return sum, nil
	}}
}

// call makes a call whose answer must be a success. read gets its body.
func call(ctx context.Context, client *http.Client, method, url string, read func(io.Reader) error) error {
	return send(ctx, client, method, url, "", read)
}

// send is call with a JSON body.
func send(ctx context.Context, client *http.Client, method, url, body string, read func(io.Reader) error) error {
	q, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Accept", "application/json")
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	a, err := client.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, url, a.Status)
	}
	limited := io.LimitReader(a.Body, maxBody)
	if read != nil {
		if err := read(limited); err != nil {
			return fmt.Errorf("%s %s: %w", method, url, err)
		}
	}
	_, err = io.Copy(io.Discard, limited)
	return err
}
