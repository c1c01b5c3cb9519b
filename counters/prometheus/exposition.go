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
)

// maxInFlight is the largest number that a float64 counts without gaps.
const maxInFlight = 1 << 53

// sum adds the values of the matching series of an exposition in the text
// format, and rounds the sum up.
func (s selector) sum(page []byte) (int64, error) {
	series, err := parse(pick(page, s.name), s.name)
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
		total += v
		matching++
	}
	if matching == 0 {
		return 0, s.missing(page, series)
	}
	if total > maxInFlight {
		return 0, fmt.Errorf("the sum of %d series is %v, which cannot be a number of requests", matching, total)
	}
	return int64(math.Ceil(total)), nil
}

// pick returns the lines of a page that may be samples of one metric. All else
// is not parsed: a page has thousands of lines, and is read every 100 ms. With
// the comments go the metric's types, so that a sample is what it is called, as
// in PromQL, and not a part of a histogram.
func pick(page []byte, name string) []byte {
	var picked []byte
	for line := range lines(page) {
		// A name may also stand in quotes, inside the braces.
		if string(nameOf(line)) == name || line[0] == '{' {
			picked = append(picked, line...)
		}
	}
	return picked
}

// lines yields the lines that hold anything, without the blanks before it, with
// the line feed after it: where that is missing, the page was cut, maybe within
// a number. Line feeds in labels are escaped.
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

// nameOf returns the name that a sample's line begins with.
func nameOf(line []byte) []byte {
	if end := bytes.IndexAny(line, "{ \t"); end >= 0 {
		return line[:end]
	}
	return nil
}

// The bounds of what an error shows of a page.
const (
	maxShown      = 3
	maxShownBytes = 200
)

// missing says why nothing matches, and what there is instead.
func (s selector) missing(page []byte, series []series) error {
	if len(series) > 0 {
		var there []string
		for _, one := range series[:min(len(series), maxShown)] {
			there = append(there, show(s.name, one.labels))
		}
		return fmt.Errorf("none of the %d series of that name matches: there is %s", len(series), strings.Join(there, ", "))
	}
	names := map[string]bool{}
	declared := false
	for line := range lines(page) {
		if fields := bytes.Fields(line); line[0] == '#' {
			declared = declared || len(fields) > 2 && string(fields[1]) == "TYPE" && string(fields[2]) == s.name
			continue
		}
		if name := string(nameOf(line)); metricName.FindString(name) == name && hasValue(line[len(name):]) {
			names[name] = true
		}
	}
	switch {
	case len(names) == 0 && !declared:
		return errors.New("the page holds no metrics: is LASTCALL_PROMETHEUS_URL the right address?")
	case declared:
		return errors.New("the metric is declared, and has no series yet: make the app set it to 0 when it starts, for each set of labels")
	}
	err := fmt.Sprintf("no series of that name is among the %d metrics of the page", len(names))
	if near := nearest(s.name, names); len(near) > 0 {
		err += ": is it " + strings.Join(near, " or ") + "?"
	}
	return errors.New(err)
}

// hasValue tells whether the rest of a line, after the name, is that of a sample.
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

// show writes a series as one would select it, cut to a length for people.
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

// nearest returns the few names that look most like name.
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

// alike measures from 0 to 1 how many pairs of neighbouring letters two names
// share (the Sørensen–Dice coefficient).
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
