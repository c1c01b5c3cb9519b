package prometheus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// page is a possible answer of an exporter, with everything that is hard to
// parse.
const page = `# HELP http_requests_in_flight In flight.\nOn two lines.
# TYPE http_requests_in_flight gauge
http_requests_in_flight{job="web",path="/a"} 2
  http_requests_in_flight { job = "web" , path = "/b\"}\n{\\" , } 3 1700000000000
http_requests_in_flight{job="batch"} 4e0
http_requests_in_flight_max 100
http_requests_in_flight_total{job="web"} 1000

# TYPE plain untyped
plain	5
# TYPE requests_total counter
requests_total 6
# TYPE fraction gauge
fraction{a="1"} 0.3
fraction{a="2"} 0.4
{"in.quotes",job="web"} 8
{"fraction",a="3"} 0.4
# TYPE sick gauge
sick{how="nan"} NaN
sick{how="inf"} +Inf
sick{how="negative"} -1
sick{how="well"} 1
sick{how="large"} 1e16
# TYPE halves gauge
halves{a="1"} 6e15
halves{a="2"} 6e15
# TYPE declared gauge
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{le="1"} 1
seconds_bucket{le="+Inf"} 9
seconds_sum 12.5
seconds_count 9
garbage{ 1
garbage_too one
`

func TestSum(t *testing.T) {
	for selector, want := range map[string]int64{
		`http_requests_in_flight`:                    9,
		`http_requests_in_flight{job="web"}`:         5,
		`http_requests_in_flight{path="/b\"}\n{\\"}`: 3,
		`http_requests_in_flight{path=""}`:           4,
		`plain`:                                      5,
		`requests_total`:                             6,
		`fraction`:                                   2, // 1.1, one of the series with its name in quotes
		`fraction{a!="3"}`:                           1,
		`sick{how="well"}`:                           1,
		`seconds_count`:                              9,
		`seconds_sum`:                                13,
		`seconds_bucket{le="1"}`:                     1,
		`http_requests_in_flight_max`:                100,
		`http_requests_in_flight{job=~"web|batch",path!="/a",path!~"/b.*"}`: 4,
	} {
		got, err := sumOf(t, selector, page)
		if err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", selector, got, err, want)
		}
	}
}

func TestNoSum(t *testing.T) {
	for _, test := range []struct{ selector, page, says string }{
		{"http_request_in_flight", page, "no series of that name is among the 12 metrics of the page: is it http_requests_in_flight or "},
		{"httpRequestsInFlight", page, "is it http_requests_in_flight or "},
		{"zzz", page, "no series of that name is among the 12 metrics of the page"},
		{`http_requests_in_flight{job="wob"}`, page, `none of the 3 series of that name matches: there is http_requests_in_flight{job="web",path="/a"}, http_requests_in_flight{job="web",path="/b\"}\n{\\"}, http_requests_in_flight{job="batch"}`},
		{"declared", page, "the metric is declared, and has no series yet"},
		{"seconds", page, "no series of that name is among the 12 metrics of the page: is it seconds_sum or "},
		{"sick", page, `sick{how="nan"} has the value NaN`},
		{`sick{how="inf"}`, page, `sick{how="inf"} has the value +Inf`},
		{`sick{how="negative"}`, page, `sick{how="negative"} has the value -1`},
		{`sick{how="large"}`, page, "1e+16"},
		{"halves", page, "the sum of 2 series is 1.2e+16"},
		{"garbage", page, "its samples cannot be read as text format 0.0.4"},
		{"garbage_too", page, "its samples cannot be read as text format 0.0.4"},
		{"up", "", "the page holds no metrics"},
		{"up", "<!DOCTYPE html>\n<p>It is up {really}</p>\nnothing to see\n", "the page holds no metrics"},
		{"up", "up 1\nup{", "cannot be read"},
		{"up", "up 1", "unexpected end"}, // truncated
		{"up", "up 1 1700000000.5\n", "no time stamp in milliseconds"},
	} {
		got, err := sumOf(t, test.selector, test.page)
		if err == nil || got != 0 || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %d, %v, want an error that says %q", test.selector, got, err, test.says)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", test.selector, len(err.Error()))
		}
	}
}

func TestLongLabelsAreCut(t *testing.T) {
	page := `up{path="/` + strings.Repeat("é", 10_000) + `"} 1` + "\n"
	_, err := sumOf(t, `up{path="/"}`, page)
	if err == nil || len(err.Error()) > 500 || !strings.HasSuffix(err.Error(), "é…") {
		t.Fatalf("got %v, want a short error", err)
	}
}

// Expositions of other libraries, recorded from the real ones.
func TestOtherExporters(t *testing.T) {
	for file, want := range map[string]map[string]int64{
		"python.txt": {
			`inprogress_requests{path="/work"}`: 2,
			`inprogress_requests`:               2,
		},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		for selector, n := range want {
			if got, err := sumOf(t, selector, string(text)); err != nil || got != n {
				t.Errorf("%s: %s: got %d, %v, want %d", file, selector, got, err, n)
			}
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add("http_requests_in_flight{job=\"web\"}", page)
	f.Add("up", "up 1\n")
	f.Add("sick", page)
	f.Fuzz(func(t *testing.T, selector, page string) {
		s, err := parseQuery(selector)
		if err != nil {
			return
		}
		n, err := s.inFlight(read(t, page))
		if n < 0 || n > maxInFlight || err != nil && n != 0 {
			t.Fatalf("%s: got %d, %v", s, n, err)
		}
		if err == nil && !strings.Contains(page, s.name) {
			// A name in quotes may be escaped.
			if !strings.Contains(page, `\`) {
				t.Fatalf("%s: got %d of a page that does not have it", s, n)
			}
		}
	})
}

func BenchmarkSum(b *testing.B) {
	some, _, _ := strings.Cut(page, "# TYPE sick")
	text := []byte(strings.Repeat(some, 300)) // some 150 KiB
	s, err := parseSelector(`requests_total`)
	if err != nil {
		b.Fatal(err)
	}
	e := read(b, string(text))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.sum(e); err != nil {
			b.Fatal(err)
		}
	}
}

// now is the time at which the tests read their pages: that of their
// timestamps.
func now() time.Time { return time.UnixMilli(1700000000000) }

func read(t testing.TB, page string) exposition {
	t.Helper()
	e, err := newExposition([]byte(page), false, now())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func sumOf(t *testing.T, metric, page string) (int64, error) {
	t.Helper()
	q, err := parseQuery(metric)
	if err != nil {
		t.Fatalf("%s: %v", metric, err)
	}
	return q.inFlight(read(t, page))
}
