package prometheus

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxInFlight is the largest number up to which a float64 represents every
// integer.
const maxInFlight = 1 << 53

// maxSkew is how far a sample's timestamp may be in the past or in the future.
const maxSkew = 5 * time.Second

// exposition is a page in the text format, or in OpenMetrics.
type exposition struct {
	text        []byte
	openMetrics bool      // timestamps are in seconds, and exemplars are possible
	now         time.Time // when it was read
}

// newExposition returns an exposition for a page. A page that ends in # EOF is
// in OpenMetrics, whatever its server declares. A page in OpenMetrics must end
// so; otherwise it was truncated.
func newExposition(text []byte, openMetrics bool, now time.Time) (exposition, error) {
	whole := bytes.HasSuffix(bytes.TrimRight(text, "\n"), []byte("\n# EOF")) || bytes.Equal(bytes.TrimRight(text, "\n"), []byte("# EOF"))
	if openMetrics && !whole {
		return exposition{}, errors.New("the page is in OpenMetrics, and does not end in # EOF: it was cut, or its server fails")
	}
	return exposition{text: text, openMetrics: whole, now: now}, nil
}

// sum adds the values of the matching series of an exposition. If there are
// none, its error is a missingError.
func (s selector) sum(e exposition) (float64, error) {
	series, err := parse(pick(e.text, s.name), s.name, e.openMetrics)
	if err != nil {
		return 0, err
	}
	total, matching := 0.0, 0
	for _, one := range series {
		if !s.matches(one.labels) {
			continue
		}
		v := one.value
		if math.IsNaN(v) || v < 0 || v > maxInFlight {
			return 0, fmt.Errorf("the series %s has the value %v, which cannot be a number of requests", show(s.name, one.labels), v)
		}
		if err := e.current(one); err != nil {
			return 0, fmt.Errorf("the series %s %w", show(s.name, one.labels), err)
		}
		total += v
		matching++
	}
	if matching == 0 {
		return 0, s.missing(e.text, series)
	}
	if total > maxInFlight {
		return 0, fmt.Errorf("the sum of %d series is %v, which cannot be a number of requests", matching, total)
	}
	return total, nil
}

// current returns an error if a sample's timestamp shows that it is from
// another time: then it does not show what is in flight now.
func (e exposition) current(one series) error {
	if !one.stamped {
		return nil
	}
	switch age := e.now.Sub(one.time); {
	case age > maxSkew:
		return fmt.Errorf("has a timestamp of %v ago: the page is federated or a stored copy; set LASTCALL_PROMETHEUS_URL to the app's own", age.Round(time.Second))
	case age < -maxSkew:
		return fmt.Errorf("has a timestamp that is %v ahead, so that its age is not known: set the clock of the program that serves the page, or the unit of its timestamps (milliseconds in the text format, seconds in OpenMetrics)", (-age).Round(time.Second))
	}
	return nil
}

// pick returns the lines of a page that may be samples of one metric. Other
// lines are not parsed: a page has thousands of lines, and is read every 100
// ms. Without the comments, the metrics' types are not known. So, as in PromQL,
// a sample is identified by its own name, and is not a part of a histogram.
func pick(page []byte, name string) []byte {
	var picked []byte
	for line := range lines(page) {
		// A name may also be in quotes inside the braces.
		if string(nameOf(line)) == name || line[0] == '{' {
			picked = append(picked, line...)
		}
	}
	return picked
}

// lines yields the lines that are not empty, without leading blanks and with
// the final line feed. If the line feed is missing, the page was truncated,
// possibly within a number. Line feeds in labels are escaped.
func lines(page []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(page) {
			line = bytes.TrimLeft(line, " \t")
			if len(line) > 0 && line[0] != '\n' && !yield(line) {
				return
			}
		}
	}
}

// nameOf returns the name at the beginning of a sample's line.
func nameOf(line []byte) []byte {
	if end := bytes.IndexAny(line, "{ \t"); end >= 0 {
		return line[:end]
	}
	return nil
}

// Limits of how much of a page an error shows.
const (
	maxShown      = 3
	maxShownBytes = 200
)

// missingError means that a page has no matching series.
type missingError struct {
	reason  string
	nothing bool // the page contains no metrics at all
	zero    bool // nevertheless, nothing can be in flight
}

func (e *missingError) Error() string { return e.reason }

// missing returns why nothing matches, and what the page contains instead.
func (s selector) missing(page []byte, series []series) *missingError {
	if len(series) > 0 {
		var there []string
		for _, one := range series[:min(len(series), maxShown)] {
			there = append(there, show(s.name, one.labels))
		}
		reason := fmt.Sprintf("none of the %d series of that name matches: there is %s", len(series), strings.Join(there, ", "))
		return &missingError{reason: reason, zero: s.excludesOnly(series)}
	}
	names := map[string]bool{}
	declared := false
	for line := range lines(page) {
		if line[0] == '#' {
			declared = declared || s.declaredBy(bytes.Fields(line))
			continue
		}
		if name := string(nameOf(line)); metricName().FindString(name) == name && hasValue(line[len(name):]) {
			names[name] = true
		}
	}
	switch {
	case declared:
		return &missingError{reason: "the metric is declared, and has no series yet", zero: true}
	case len(names) == 0:
		return &missingError{reason: "the page holds no metrics: is LASTCALL_PROMETHEUS_URL the right address?", nothing: true}
	}
	reason := fmt.Sprintf("no series of that name is among the %d metrics of the page", len(names))
	if near := nearest(s.name, names); len(near) > 0 {
		reason += ": is it " + strings.Join(near, " or ") + "?"
	}
	return &missingError{reason: reason}
}

// excludesOnly reports whether the selector's = and =~ match some of the
// series. Then these matchers are correct, and only its != and !~ exclude the
// series.
func (s selector) excludesOnly(all []series) bool {
	positive := selector{name: s.name}
	for _, m := range s.matchers {
		if m.op == "=" || m.op == "=~" {
			positive.matchers = append(positive.matchers, m)
		}
	}
	return slices.ContainsFunc(all, func(one series) bool { return positive.matches(one.labels) })
}

// declaredBy reports whether a comment, given by its fields, declares a metric
// whose samples have the selector's name.
func (s selector) declaredBy(comment [][]byte) bool {
	if len(comment) < 4 || string(comment[0]) != "#" || string(comment[1]) != "TYPE" {
		return false
	}
	rest, ok := strings.CutPrefix(s.name, string(comment[2]))
	if !ok {
		return false
	}
	switch string(comment[3]) {
	case "histogram", "summary":
		return rest == "_count" || rest == "_sum"
	case "counter":
		return rest == "" || rest == "_total"
	case "gauge", "untyped", "unknown":
		return rest == ""
	}
	return false
}

// hasValue reports whether the rest of a line, after the name, is a sample's.
func hasValue(rest []byte) bool {
	if len(rest) > 0 && rest[0] == '{' {
		return bytes.IndexByte(rest, '}') > 0
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return false
	}
	_, err := strconv.ParseFloat(string(fields[0]), 64)
	return err == nil
}

// show formats a series as a selector, truncated to a readable length.
func show(name string, labels map[string]string) string {
	s := selector{name: name}
	for label, value := range labels {
		s.matchers = append(s.matchers, matcher{label: label, op: "=", value: value})
	}
	slices.SortFunc(s.matchers, func(a, b matcher) int { return cmp.Compare(a.label, b.label) })
	text := s.String()
	if len(text) > maxShownBytes {
		return strings.ToValidUTF8(text[:maxShownBytes], "") + "…"
	}
	return text
}

// nearest returns the few names that are most similar to name.
func nearest(name string, names map[string]bool) []string {
	type candidate struct {
		name  string
		alike float64
	}
	var near []candidate
	for other := range names {
		if a := alike(name, other); a >= 0.4 {
			near = append(near, candidate{other, a})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.alike, a.alike), cmp.Compare(a.name, b.name))
	})
	var shown []string
	for _, c := range near[:min(len(near), maxShown)] {
		shown = append(shown, show(c.name, nil))
	}
	return shown
}

// alike returns a measure from 0 to 1 of how many pairs of neighbouring letters
// two names share (the Sørensen–Dice coefficient).
func alike(a, b string) float64 {
	pairs := map[string]int{}
	for i := range len(a) - 1 {
		pairs[strings.ToLower(a[i:i+2])]++
	}
	shared := 0
	for i := range len(b) - 1 {
		if pair := strings.ToLower(b[i : i+2]); pairs[pair] > 0 {
			pairs[pair]--
			shared++
		}
	}
	return 2 * float64(shared) / float64(max(len(a)+len(b)-2, 1))
}
