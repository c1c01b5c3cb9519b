package steps

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// condition is one requirement on an answer's body.
type condition interface {
	// holds reports whether it is met. An error means that the body does not
	// show it.
	holds(body []byte, values values) (bool, error)
	// String returns the condition as the file has it.
	String() string
}

// comparison is the condition `PATH OP VALUE`, `PATH exists` or `PATH missing`.
type comparison struct {
	path, value text
	op          string
	raw         string
}

// operators returns the operators of a comparison. The longer ones come first.
func operators() []string { return []string{"==", "!=", "<=", ">=", "<", ">"} }

const comparisonHelp = `write it as PATH OPERATOR VALUE, with spaces around the operator (== != < <= > >=), or PATH exists, or PATH missing`

func parseComparison(raw string) (*comparison, error) {
	c := &comparison{raw: raw}
	path, op, value := splitAtOperator(raw)
	if op == "" {
		for _, word := range []string{"exists", "missing"} {
			if before, ok := strings.CutSuffix(strings.TrimSpace(raw), " "+word); ok {
				path, op = before, word
			}
		}
	}
	path, value = strings.TrimSpace(path), strings.TrimSpace(value)
	if op == "" || path == "" {
		return nil, fmt.Errorf("%q: %s", raw, comparisonHelp)
	}
	if quoted := len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"'; quoted {
		value = value[1 : len(value)-1]
	} else if value == "" && op != "exists" && op != "missing" {
		return nil, fmt.Errorf(`%q: its value is missing; an empty one is written ""`, raw)
	}
	c.op = op
	var err error
	if c.path, err = parseText(path); err != nil {
		return nil, err
	}
	c.value, err = parseText(value)
	return c, err
}

// splitAtOperator splits s at the first operator that stands between spaces and
// not in brackets or quotes.
func splitAtOperator(s string) (before, op, after string) {
	depth, quoted := 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			depth--
		case c == ' ' && depth == 0:
			for _, op := range operators() {
				if rest, ok := strings.CutPrefix(s[i+1:], op); ok && (rest == "" || rest[0] == ' ') {
					return s[:i], op, rest
				}
			}
		}
	}
	return s, "", ""
}

func (c *comparison) String() string { return c.raw }

func (c *comparison) holds(body []byte, values values) (bool, error) {
	got, err := lookup(body, c.path, values)
	if err != nil {
		return false, err
	}
	switch c.op {
	case "exists":
		return got.Exists(), nil
	case "missing":
		return !got.Exists(), nil
	}
	if !got.Exists() {
		return false, fmt.Errorf("the answer has no %s", c.path.raw)
	}
	want, err := c.value.expand(values, nil)
	if err != nil {
		return false, err
	}
	result, err := compare(got.String(), c.op, want)
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.path.raw, err)
	}
	return result, nil
}

// lookup returns the value at path in body, which must be JSON.
func lookup(body []byte, path text, values values) (gjson.Result, error) {
	if !gjson.ValidBytes(body) {
		return gjson.Result{}, errors.New("the answer is not JSON")
	}
	at, err := path.expand(values, inPath)
	if err != nil {
		return gjson.Result{}, err
	}
	return gjson.GetBytes(body, at), nil
}

// compare compares two values: as numbers if both are numbers, otherwise as
// text, for which only == and != are defined.
func compare(got, op, want string) (bool, error) {
	order, numbers := compareNumbers(got, want)
	switch op {
	case "==":
		return got == want || numbers && order == 0, nil
	case "!=":
		return got != want && (!numbers || order != 0), nil
	}
	if !numbers {
		return false, fmt.Errorf("%.40q and %.40q cannot be compared by %s: both must be numbers", got, want, op)
	}
	switch op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	default:
		return order >= 0, nil
	}
}

// compareNumbers compares integers of up to 64 bits exactly: ids may be that
// large.
func compareNumbers(a, b string) (order int, ok bool) {
	if x, err := strconv.ParseInt(a, 10, 64); err == nil {
		if y, err := strconv.ParseInt(b, 10, 64); err == nil {
			return compareOrdered(x, y), true
		}
	}
	if x, err := strconv.ParseUint(a, 10, 64); err == nil {
		if y, err := strconv.ParseUint(b, 10, 64); err == nil {
			return compareOrdered(x, y), true
		}
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil || errY != nil || x != x || y != y {
		return 0, false
	}
	return compareOrdered(x, y), true
}

func compareOrdered[N int64 | uint64 | float64](a, b N) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// holding is the condition that the body contains a text, or does not contain
// it.
type holding struct {
	text text
	want bool
}

func (h holding) String() string {
	if h.want {
		return fmt.Sprintf("contains %q", h.text.raw)
	}
	return fmt.Sprintf("lacks %q", h.text.raw)
}

func (h holding) holds(body []byte, values values) (bool, error) {
	part, err := h.text.expand(values, nil)
	if err != nil {
		return false, err
	}
	if part == "" {
		return false, errors.New("the text to look for is empty")
	}
	return strings.Contains(string(body), part) == h.want, nil
}

// number is the condition that each number that a regular expression finds in a
// plain text satisfies a comparison.
type number struct {
	pattern text
	op      string
	value   text
	raw     string
}

const numberHelp = `write it as REGEXP OPERATOR NUMBER, where one group of the expression holds the number: '^leaders (\d+)$ == 0'`

func parseNumber(raw string) (*number, error) {
	at, op := -1, ""
	for _, o := range operators() {
		if i := strings.LastIndex(raw, " "+o+" "); i > at {
			at, op = i, o
		}
	}
	if at < 0 {
		return nil, fmt.Errorf("%q: %s", raw, numberHelp)
	}
	n := &number{op: op, raw: raw}
	var err error
	if n.pattern, err = parseText(raw[:at]); err != nil {
		return nil, err
	}
	if n.value, err = parseText(strings.TrimSpace(raw[at+len(op)+2:])); err != nil {
		return nil, err
	}
	// Any value shows whether the expression is valid, as well as the real one.
	sample, _ := n.pattern.expand(values{}.with(samples(n.pattern)), inRegexp)
	found, err := regexp.Compile("(?m)" + sample)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q: the regular expression is wrong: %w", raw, err)
	case found.NumSubexp() != 1:
		return nil, fmt.Errorf("%q: the regular expression has %d groups; %s", raw, found.NumSubexp(), numberHelp)
	}
	return n, nil
}

func samples(t text) map[string]string {
	all := map[string]string{}
	for _, p := range t.parts {
		if p.name != "" {
			all[p.name] = "x"
		}
	}
	return all
}

func (n *number) String() string { return n.raw }

func (n *number) holds(body []byte, values values) (bool, error) {
	expression, err := n.pattern.expand(values, inRegexp)
	if err != nil {
		return false, err
	}
	pattern, err := regexp.Compile("(?m)" + expression)
	if err != nil {
		return false, err
	}
	want, err := n.value.expand(values, nil)
	if err != nil {
		return false, err
	}
	const most = 10_000
	matches := pattern.FindAllSubmatch(body, most)
	if len(matches) == 0 {
		return false, fmt.Errorf("the answer has nothing that matches %s", n.pattern.raw)
	}
	for _, match := range matches {
		ok, err := compare(string(match[1]), n.op, want)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}
