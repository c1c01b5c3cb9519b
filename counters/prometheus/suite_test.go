package prometheus

import (
	"maps"
	"slices"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
)

func TestSuite(t *testing.T) {
	for _, how := range slices.Sorted(maps.Keys(broken)) {
		t.Run("broken by "+how, func(t *testing.T) {
			countertest.Run(t, func(t *testing.T) countertest.Harness { return harness{program: start(t), how: how} })
		})
	}
	t.Run("with a total", func(t *testing.T) {
		countertest.Run(t, func(t *testing.T) countertest.Harness {
			return harness{program: start(t), how: "500", total: requests + `{path!="/metrics"}`}
		})
	})
}

type harness struct {
	*program
	how   string
	total string
}

func (h harness) Counter(t *testing.T) drain.Counter {
	t.Helper()
	c, err := New(Config{URL: h.url + "/metrics", Metric: gauge + `{job="web", path!="/metrics"}`, Total: h.total}, drain.Pod{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
func (h harness) Begin(t *testing.T) (end func()) { return h.begin(t) }
func (h harness) Idle(t *testing.T) bool          { h.idle(t); return true }
func (h harness) Arrivals() bool                  { return h.total != "" }
func (h harness) Break(t *testing.T) (repair func()) {
	h.breaks(t, h.how)
	return func() { h.breaks(t, "not") }
}

// What the package comment states about a scrape that counts itself.
func TestOwnScrape(t *testing.T) {
	p := start(t)
	for selector, want := range map[string]int64{
		gauge + `{job="web"}`:                       1,
		gauge + `{job="web",path!="/metrics"}`:      0,
		gauge + `{job=~"w.b|batch",path!~"/met.*"}`: 7,
		gauge:            8,
		gauge + "_limit": 7,
		" " + gauge + " { job = 'batch' , path=~`/h..d`, x=\"\", } ": 7,
	} {
		r, err := counter(t, p.url+"/metrics", selector).Count(t.Context())
		if err != nil || r.InFlight != want {
			t.Errorf("%s: got %d, %v, want %d", selector, r.InFlight, err, want)
		}
	}
}
