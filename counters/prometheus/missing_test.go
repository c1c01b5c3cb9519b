package prometheus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

// connections is how many connections the app has open.
type connections struct {
	open int64
	err  error
}

func (c *connections) Count(context.Context) (drain.Reading, error) {
	return drain.Reading{InFlight: c.open}, c.err
}

// servePage serves the text to which page points at the time of each reading.
func servePage(t *testing.T, page *string, header ...string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = io.WriteString(w, *page)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// A missing metric means zero only if nothing can be in flight.
func TestMissing(t *testing.T) {
	none, some, unknown := &connections{}, &connections{open: 2}, &connections{err: errors.New("no netlink")}
	for _, test := range []struct {
		name, metric, total, page string
		connections               drain.Counter
		says                      string // empty: the reading is zero
	}{
		{"declared, without a series", "g", "", "# TYPE g gauge\nup 1\n", nil, ""},
		{"the only thing declared", "g", "", "# TYPE g gauge\n", nil, ""},
		{"declared by help alone", "g", "", "# HELP g In flight.\nup 1\n", nil, "no series of that name"},
		{"declared with matchers", `g{path!="/metrics",job=~"a.*"}`, "", "# TYPE g gauge\nup 1\n", some, ""},
		{"a histogram's name", "g", "", "# TYPE g histogram\nup 1\n", nil, "no series of that name"},
		{"a histogram's count", "g_count", "", "# TYPE g histogram\nup 1\n", nil, ""},
		{"another of the same beginning", "g", "", "# TYPE g_limit gauge\ng_limit 1\n", nil, "no series of that name"},
		{"nothing at all", "g", "", "", none, "the page holds no metrics"},
		{"a web page", "g", "", "<html>It works!</html>\n", none, "the page holds no metrics"},

		{"all are excluded", `g{path!="/metrics"}`, "", "g{path=\"/metrics\"} 1\n", some, ""},
		{"all are excluded by a pattern", `g{path!~"/(metrics|ready)"}`, "", "g{path=\"/metrics\"} 1\ng{path=\"/ready\"} 0\n", nil, ""},
		{"one is left, of those that must match", `g{job="a",path!="/metrics"}`, "", "g{job=\"a\",path=\"/metrics\"} 1\ng{job=\"b\",path=\"/\"} 1\n", nil, ""},
		{"what must match does not", `g{jub="a",path!="/metrics"}`, "", "g{job=\"a\",path=\"/metrics\"} 1\n", nil, "none of the 1 series"},
		{"what must match does not, with connections", `g{job="a"}`, "", "g{job=\"b\"} 1\n", some, "none of the 1 series of that name matches: there is g{job=\"b\"}; and the app has 2 open connections"},
		{"what must match does not, and nobody is there", `g{job="a"}`, "", "g{job=\"b\"} 1\n", none, ""},

		{"not there, no port known", "g", "", "up 1\n", nil, "with LASTCALL_APP_PORT set"},
		{"not there, with connections", "g", "", "up 1\n", some, "2 open connections"},
		{"not there, connections unknown", "g", "", "up 1\n", unknown, "no netlink"},
		{"not there, and nobody is there", "g", "", "up 1\n", none, ""},
		{"neither there, and nobody is there", "g", "n", "up 1\n", none, ""},
		{"neither there, with connections", "g", "n", "up 1\n", some, "LASTCALL_PROMETHEUS_TOTAL=n: no series of that name"},
		{"the total says that there were some", "g", "n", "n 7\n", none, "LASTCALL_PROMETHEUS_TOTAL has counted 7 requests, so it should be there"},
		{"the total is zero", "g", "n", "n 0\n", none, ""},
		{"the total is missing", "g", "n", "g 0\n", some, "LASTCALL_PROMETHEUS_TOTAL=n: no series"},
		{"the total is declared", "g", "n_total", "g 0\n# TYPE n_total counter\n", some, ""},
		{"the total is declared as in OpenMetrics", "g", "n_total", "g 0\n# TYPE n counter\n# EOF\n", some, ""},
		{"the total is negative", "g", "n", "g 0\nn -1\n", nil, "n has the value -1"},
		{"the total is not a number", "g", "n", "g 0\nn NaN\n", nil, "n has the value NaN"},

		{"the scrape is counted", "g - 1", "", "g 1\n", nil, ""},
		{"the scrape is not counted", "g - 1", "", "g 0\n", nil, "the sum is 0, less than the offset 1"},
		{"the scrape is declared alone", "g - 1", "", "# TYPE g gauge\nup 1\n", none, "so it must be there"},
		{"the scrape is not there", "g - 1", "", "up 1\n", none, "so it must be there"},
		{"the scrape is excluded", `g{path!="/metrics"} - 1`, "", "g{path=\"/metrics\"} 1\n", none, "so it must be there"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := New(Config{URL: servePage(t, &test.page), Metric: test.metric, Total: test.total}, drain.Pod{}, test.connections)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Count(t.Context())
			if test.says == "" {
				if want := (drain.Reading{HasArrived: test.total != ""}); err != nil || r != want {
					t.Errorf("got %+v, %v, want %+v", r, err, want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.says) || r != (drain.Reading{}) {
				t.Errorf("got %+v, %v, want an error that says %q", r, err, test.says)
			}
		})
	}
}

// A total may appear with the first answer. While there is work, its absence is
// not an error.
func TestTotalThatIsToCome(t *testing.T) {
	page := "g 2\n"
	c, err := New(Config{URL: servePage(t, &page), Metric: "g", Total: "n"}, drain.Pod{}, &connections{open: 2})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Count(t.Context()); err != nil || r != (drain.Reading{InFlight: 2}) {
		t.Errorf("got %+v, %v, want 2 and no arrivals", r, err)
	}
	for _, page = range []string{"g 0\n", "g 2\nn NaN\n", "up 1\n", "up 1\nn NaN\n"} {
		if r, err := c.Count(t.Context()); err == nil || !strings.Contains(err.Error(), "LASTCALL_PROMETHEUS_TOTAL=n") {
			t.Errorf("%q: got %+v, %v, want an error", page, r, err)
		}
	}
}

// A metric that may be misspelled counts as zero only with a warning, which is
// logged once.
func TestMissingIsLogged(t *testing.T) {
	log := logged(t)
	page := "requests_in_flight 3\n"
	c, err := New(Config{URL: servePage(t, &page), Metric: "requests_in_fligth"}, drain.Pod{}, &connections{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Count(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"level=WARN", "LASTCALL_PROMETHEUS_METRIC", "is it requests_in_flight?"} {
		if strings.Count(log.String(), part) != 1 {
			t.Errorf("the log says %q, want %q once", log.String(), part)
		}
	}
}

// A total that counts the scrapes would keep the pod from ever being quiet.
func TestTotalThatCountsScrapes(t *testing.T) {
	log := logged(t)
	page := ""
	c, err := New(Config{URL: servePage(t, &page), Metric: "g", Total: "n"}, drain.Pod{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * manyScrapes {
		page = fmt.Sprintf("g 0\nn %d\n", i)
		if _, err := c.Count(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == manyScrapes-1 && log.Len() > 0 {
			t.Errorf("too soon: %s", log)
		}
	}
	if strings.Count(log.String(), "exclude them by a label") != 1 {
		t.Errorf("the log says %q", log)
	}
}

// logged returns a buffer with everything that is logged from now on.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return &log
}

func TestOffset(t *testing.T) {
	page := "g{a=\"1\"} 3\ng{a=\"2\"} 0.4\n"
	for metric, want := range map[string]int64{
		"g": 4, "g - 1": 3, "g-1": 3, "g -1": 3, "g- 4": 0, "g - 0": 4, `g{a="1"} - 1`: 2, `g{a="1",}-2`: 1, " g { a = '1' } - 3 ": 0,
	} {
		if got, err := sumOf(t, metric, page); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", metric, got, err, want)
		}
	}
	for metric, says := range map[string]string{
		"g + 1": "at byte 3: nothing may follow the selector but an offset, such as - 1", "g -": "at byte 4: after - comes a whole number", "g - x": "at byte 5: after - comes a whole number",
		"g - 1x": "after - comes a whole number", "g - 1.5": "nothing may follow the offset", "g - 1 - 1": "nothing may follow the offset", "g - -1": "after - comes",
		"g - 1001": "from 0 to 1000", "g - 99999999999999999999": "from 0 to 1000", "g / 2": "nothing may follow", "g offset 5m": "nothing may follow", "g − 1": "nothing may follow", "1 - g": "a metric's name is missing",
	} {
		if _, err := parseQuery(metric); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", metric, err, says)
		}
	}
	if _, err := sumOf(t, "g - 5", page); err == nil || !strings.Contains(err.Error(), "less than the offset 5") {
		t.Errorf("got %v", err)
	}
	if q, err := parseQuery(`g{a="1"}-1`); err != nil || q.String() != `g{a="1"} - 1` {
		t.Errorf("got %s, %v", q, err)
	}
}

func TestTimestamps(t *testing.T) {
	const om = "# EOF\n"
	for _, test := range []struct {
		name, page string
		says       string // empty: the reading is 2
	}{
		{"none", "g 2\n", ""},
		{"now", "g 2 1700000000000\n", ""},
		{"a moment ago", "g 2 1699999995000\n", ""},
		{"a moment ahead", "g 2 1700000005000\n", ""},
		{"old", "g 2 1699999990000\n", "g has a timestamp of 10s ago: the page is federated or a stored copy"},
		{"one of them is old", "g{a=\"1\"} 2\ng{a=\"2\"} 0 1699999990000\n", `g{a="2"} has a timestamp of 10s ago`},
		{"another metric is old", "g 2\nh 1 1600000000000\n", ""},
		{"ahead", "g 2 1700000060000\n", "1m0s ahead"},
		{"in seconds, which are milliseconds here", "g 2 1700000000\n", "ago"},
		{"negative", "g 2 -1\n", "ago"},
		{"OpenMetrics", "g 2\n" + om, ""},
		{"OpenMetrics now", "g 2 1700000000\n" + om, ""},
		{"OpenMetrics now, with a fraction", "g 2 1700000000.25\n" + om, ""},
		{"OpenMetrics now, as Python writes it", "g 2 1.7e9\n" + om, ""},
		{"OpenMetrics, old", "g 2 1699999990\n" + om, "10s ago"},
		{"OpenMetrics in milliseconds", "g 2 1700000000000\n" + om, "ahead"},
		{"OpenMetrics, not a time", "g 2 NaN\n" + om, "no time stamp in seconds"},
		{"OpenMetrics, not a possible time", "g 2 1e300\n" + om, "no time stamp in seconds"},
		{"OpenMetrics, with an exemplar", "g 2 # {trace_id=\"x\"} 1 1600000000\n" + om, ""},
		{"OpenMetrics, with time and exemplar", "g 2 1700000000 # {trace_id=\"x\"} 1\n" + om, ""},
		{"an exemplar elsewhere", "g 2 # {trace_id=\"x\"} 1\n", "no time stamp in milliseconds"},
	} {
		got, err := sumOf(t, "g", test.page)
		if test.says == "" && (err != nil || got != 2) || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %d, %v, want %q", test.name, got, err, test.says)
		}
	}
}

func TestAnswers(t *testing.T) {
	stamped := "g 0 " + time.Now().Add(-time.Hour).Format("20060102") + "\n"
	for _, test := range []struct {
		name, page string
		header     []string
		says       string
	}{
		{"OpenMetrics", "g 0\n# EOF\n", []string{"Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8"}, ""},
		{"OpenMetrics that was cut", "g 0\n", []string{"Content-Type", "application/openmetrics-text; version=1.0.0"}, "does not end in # EOF"},
		{"a cache's", "g 0\n", []string{"Age", "3"}, "stored copy"},
		{"an old one", "g 0\n", []string{"Date", "Sat, 01 Jan 2000 00:00:00 GMT"}, "stored copy"},
		{"federated", stamped, nil, "federated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := counter(t, servePage(t, &test.page, test.header...), "g")
			r, err := c.Count(t.Context())
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %+v, %v, want %q", r, err, test.says)
			}
		})
	}
}

// Arrivals are always the value of the total: a smaller value is a restart of
// the app.
func TestArrivals(t *testing.T) {
	page := ""
	c, err := New(Config{URL: servePage(t, &page), Metric: "g", Total: `n_total{path!="/metrics"}`}, drain.Pod{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.ReportsArrivals() || counter(t, "http://h", "g").ReportsArrivals() {
		t.Error("arrivals are reported without a total, or not with one")
	}
	for _, step := range []struct {
		page string
		want uint64
	}{
		{"g 1\nn_total{path=\"/\"} 5\nn_total{path=\"/metrics\"} 100\n", 5},
		{"g 1\nn_total{path=\"/\"} 6\nn_total{path=\"/a\"} 2\nn_total{path=\"/metrics\"} 101\n", 8},
		{"g 1\nn_total{path=\"/\"} 1e3\n", 1000},
		{"g 1\nn_total{path=\"/\"} 2.9\n", 2},
		{"g 1\nn_total{path=\"/metrics\"} 1\n", 0},
	} {
		page = step.page
		if r, err := c.Count(t.Context()); err != nil || r != (drain.Reading{InFlight: 1, Arrived: step.want, HasArrived: true}) {
			t.Errorf("got %+v, %v, want %d", r, err, step.want)
		}
	}
}
