package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Row is the result of all runs of one approach in one scenario.
type Row struct {
	Scenario Scenario
	Approach string
	Runs     int
	Requests int // in all runs
	Failed   Spread[int]
	Took     Spread[time.Duration]
	Wasted   Spread[time.Duration]
	Early    int // runs in which the hook returned while there was work, or could still be
	Cut      int // runs in which the grace period ended before the hook returned
}

// Spread is the median and the maximum of some values.
type Spread[T cmp.Ordered] struct{ Median, Most T }

// spread returns the Spread of values. If their number is even, Median is the
// higher of the two in the middle.
func spread[T cmp.Ordered](values []T) (s Spread[T]) {
	if len(values) == 0 {
		return s
	}
	sorted := slices.Sorted(slices.Values(values))
	return Spread[T]{sorted[len(sorted)/2], sorted[len(sorted)-1]}
}

// Summary is the comparison's outcome.
type Summary struct {
	Rows  []Row
	Quiet time.Duration // LASTCALL_QUIET, which is part of Lastcall's wasted time
}

// Summarize groups the results by scenario and approach, in the order of their
// first appearance.
func Summarize(results []Result, quiet time.Duration) Summary {
	s := Summary{Quiet: quiet}
	for _, scenario := range []Scenario{ByEndpoints, ByRegistry} {
		var names []string
		for i := range results {
			if r := &results[i]; r.Scenario == scenario && !slices.Contains(names, r.Approach) {
				names = append(names, r.Approach)
			}
		}
		for _, name := range names {
			row := Row{Scenario: scenario, Approach: name}
			var failed []int
			var took, wasted []time.Duration
			for i := range results {
				r := &results[i]
				if r.Scenario != scenario || r.Approach != name {
					continue
				}
				row.Runs++
				row.Requests += r.Requests
				failed = append(failed, len(r.Failures))
				took = append(took, r.Took)
				wasted = append(wasted, r.Wasted)
				if r.Early {
					row.Early++
				}
				if r.Cut {
					row.Cut++
				}
			}
			row.Failed, row.Took, row.Wasted = spread(failed), spread(took), spread(wasted)
			s.Rows = append(s.Rows, row)
		}
	}
	return s
}

// of returns the rows of one scenario.
func (s Summary) of(scenario Scenario) []Row {
	return slices.DeleteFunc(slices.Clone(s.Rows), func(r Row) bool { return r.Scenario != scenario })
}

// Markdown returns a table and a verdict for each scenario.
func (s Summary) Markdown() string {
	var out strings.Builder
	for _, scenario := range []Scenario{ByEndpoints, ByRegistry} {
		rows := s.of(scenario)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&out, "**%s**\n\n| | failed requests | hook → return | wasted | runs, requests |\n| --- | --- | --- | --- | --- |\n", scenario)
		for i := range rows {
			r := &rows[i]
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %d, %d |\n", r.Approach, count(r.Failed), s.took(r), s.wasted(r), r.Runs, r.Requests)
		}
		fmt.Fprintf(&out, "\n%s\n\n", s.Verdict(scenario))
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func count(s Spread[int]) string {
	if s.Median == s.Most {
		return fmt.Sprint(s.Median)
	}
	return fmt.Sprintf("%d, at most %d", s.Median, s.Most)
}

func (s Summary) took(r *Row) string {
	if r.Cut > 0 {
		return fmt.Sprintf("%s, the grace period's end (%d of %d runs)", seconds(r.Took.Most), r.Cut, r.Runs)
	}
	return durations(r.Took)
}

func (s Summary) wasted(r *Row) string {
	switch {
	case r.Early == r.Runs && r.Cut > 0:
		return "–: there was still work"
	case r.Early == r.Runs:
		return "–: it left too early"
	case r.Approach == Lastcall:
		return fmt.Sprintf("%s; less LASTCALL_QUIET %s", durations(r.Wasted), milliseconds(s.lessQuiet(r)))
	}
	return durations(r.Wasted)
}

// lessQuiet returns Lastcall's wasted time without LASTCALL_QUIET.
func (s Summary) lessQuiet(r *Row) Spread[time.Duration] {
	return Spread[time.Duration]{max(r.Wasted.Median-s.Quiet, 0), max(r.Wasted.Most-s.Quiet, 0)}
}

func durations(s Spread[time.Duration]) string {
	median, most := seconds(s.Median), seconds(s.Most)
	if median == most {
		return median
	}
	return median + ", at most " + most
}

func milliseconds(s Spread[time.Duration]) string {
	return fmt.Sprintf("%d ms, at most %d ms", s.Median.Milliseconds(), s.Most.Milliseconds())
}

// seconds formats a duration: 1.02 s, 30.0 s.
func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// isOurs reports whether the approach is Lastcall, with any of the apps.
func (r *Row) isOurs() bool { return strings.HasPrefix(r.Approach, "Lastcall") }

// perfect reports whether no request failed in any run.
func (r *Row) perfect() bool { return r.Failed.Most == 0 }

// Verdict compares Lastcall with the fastest other approach that lost no request.
func (s Summary) Verdict(scenario Scenario) string {
	rows := s.of(scenario)
	ours := slices.IndexFunc(rows, func(r Row) bool { return r.Approach == Lastcall })
	if ours < 0 {
		return "Lastcall was not run."
	}
	us := &rows[ours]
	if !us.perfect() {
		return fmt.Sprintf("**Lastcall lost requests: %s.** That should not be.", count(us.Failed))
	}
	var nearest *Row
	for i := range rows {
		if r := &rows[i]; !r.isOurs() && r.perfect() && (nearest == nil || r.Wasted.Median < nearest.Wasted.Median) {
			nearest = r
		}
	}
	wasted := fmt.Sprintf("Lastcall lost none of %d requests and wasted %s in the median, %d ms of it beyond LASTCALL_QUIET", us.Requests, seconds(us.Wasted.Median), s.lessQuiet(us).Median.Milliseconds())
	if nearest == nil {
		return wasted + "; each of the others lost some."
	}
	return fmt.Sprintf("%s. The nearest other that lost none is %s: it wasted %s, %.0f times as much.",
		wasted, nearest.Approach, seconds(nearest.Wasted.Median), nearest.Wasted.Median.Seconds()/us.Wasted.Median.Seconds())
}
