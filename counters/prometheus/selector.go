package prometheus

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"lastcall/internal/lazyregexp"
)

// selector is an instant vector selector of PromQL, without an offset in time:
// a metric's name, and matchers that must all match. PromQL's own parser would
// make the program 1 MB larger.
type selector struct {
	name     string
	matchers []matcher
}

// matcher is one comparison with a label's value. A label that a series does
// not have is compared as if it were empty, as in PromQL.
type matcher struct {
	label, op, value string
	re               *regexp.Regexp // for =~ and !~, anchored at both ends
}

func (m matcher) matches(value string) bool {
	switch m.op {
	case "=":
		return value == m.value
	case "!=":
		return value != m.value
	case "=~":
		return m.re.MatchString(value)
	default: // !~
		return !m.re.MatchString(value)
	}
}

// matches reports whether a series with these labels is selected.
func (s selector) matches(labels map[string]string) bool {
	for _, m := range s.matchers {
		if !m.matches(labels[m.label]) {
			return false
		}
	}
	return true
}

func (s selector) String() string {
	if len(s.matchers) == 0 {
		return s.name
	}
	var matchers []string
	for _, m := range s.matchers {
		matchers = append(matchers, m.label+m.op+strconv.Quote(m.value))
	}
	return s.name + "{" + strings.Join(matchers, ",") + "}"
}

// The names that the text format allows (prometheus.io, "Metric names and
// labels").
var (
	metricName = lazyregexp.New(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	labelName  = lazyregexp.New(`^[a-zA-Z_][a-zA-Z0-9_]*`)
	operator   = lazyregexp.New(`^(=~|!~|!=|=)`)
	comma      = lazyregexp.New(`^,`)
	opening    = lazyregexp.New(`^\{`)
	closing    = lazyregexp.New(`^\}`)
	minus      = lazyregexp.New(`^-`)
	digits     = lazyregexp.New(`^[0-9]+\b`)
)

// maxSelector is the maximum length of a selector in bytes.
const maxSelector = 4096

// parseSelector parses name{label="value", label!="value", label=~"regexp",
// label!~"regexp"}. Its errors include the position.
func parseSelector(text string) (selector, error) {
	q, err := parseAs(text, (*parser).end)
	return q.selector, err
}

// parseQuery parses a selector and an optional offset after it, such as - 1.
func parseQuery(text string) (query, error) { return parseAs(text, (*parser).offset) }

func parseAs(text string, after func(*parser, *query) error) (query, error) {
	if text == "" {
		return query{}, errors.New("it is not set")
	}
	if len(text) > maxSelector || !utf8.ValidString(text) {
		return query{}, fmt.Errorf("it is longer than %d bytes, or not UTF-8", maxSelector)
	}
	p := parser{text: text, rest: text}
	var q query
	var err error
	if q.selector, err = p.selector(); err == nil {
		err = after(&p, &q)
	}
	if err != nil {
		return query{}, fmt.Errorf("at byte %d: %w", len(text)-len(p.rest)+1, err)
	}
	return q, nil
}

type parser struct{ text, rest string }

// take consumes and returns the next token if it is as wanted, otherwise "".
func (p *parser) take(wanted *regexp.Regexp) string {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	token := wanted.FindString(p.rest)
	p.rest = p.rest[len(token):]
	return token
}

func (p *parser) selector() (s selector, err error) {
	if s.name = p.take(metricName()); s.name == "" {
		return s, errors.New("a metric's name is missing")
	}
	if p.take(opening()) != "" {
		for p.take(closing()) == "" {
			m, err := p.matcher()
			if err != nil {
				return s, err
			}
			s.matchers = append(s.matchers, m)
			if p.take(comma()) == "" {
				if p.take(closing()) != "" {
					break
				}
				return s, errors.New("after a matcher comes , or }")
			}
		}
	}
	return s, nil
}

// end returns an error if anything follows the selector.
func (p *parser) end(*query) error {
	if p.rest = strings.TrimSpace(p.rest); p.rest != "" {
		return errors.New("nothing may follow the selector")
	}
	return nil
}

// offset parses the optional offset after the selector.
func (p *parser) offset(q *query) error {
	if p.rest = strings.TrimSpace(p.rest); p.rest == "" {
		return nil
	}
	if p.take(minus()) == "" {
		return errors.New("nothing may follow the selector but an offset, such as - 1")
	}
	number := p.take(digits())
	if number == "" {
		return errors.New("after - comes a whole number of requests, such as - 1")
	}
	var err error
	if q.offset, err = strconv.ParseInt(number, 10, 64); err != nil || q.offset > maxOffset {
		return fmt.Errorf("the offset must be from 0 to %d", maxOffset)
	}
	if p.rest = strings.TrimSpace(p.rest); p.rest != "" {
		return errors.New("nothing may follow the offset")
	}
	return nil
}

// maxOffset is more than the number of concurrent readers of any page.
const maxOffset = 1000

func (p *parser) matcher() (m matcher, err error) {
	if m.label = p.take(labelName()); m.label == "" {
		return m, errors.New("a label's name is missing")
	}
	if m.label == "__name__" {
		return m, errors.New("the metric's name stands before the braces")
	}
	if m.op = p.take(operator()); m.op == "" {
		return m, errors.New("after a label's name comes =, !=, =~ or !~")
	}
	if m.value, err = p.string(); err != nil {
		return m, err
	}
	if strings.HasSuffix(m.op, "~") {
		// (?s) and the anchors are as in PromQL.
		if m.re, err = regexp.Compile("^(?s:" + m.value + ")$"); err != nil {
			return m, fmt.Errorf("the regular expression %q: %w", m.value, err)
		}
	}
	return m, nil
}

// string parses a string in PromQL's notation: in double or single quotes with
// Go's escapes, or in back quotes without escapes.
func (p *parser) string() (string, error) {
	rest := strings.TrimLeft(p.rest, " \t\r\n")
	p.rest = rest
	if rest == "" || !strings.ContainsRune("\"'`", rune(rest[0])) {
		return "", errors.New("after the operator comes a value in quotes")
	}
	quote := rest[0]
	rest = rest[1:]
	if quote == '`' {
		value, after, closed := strings.Cut(rest, "`")
		if !closed {
			return "", errors.New("the quotes are not closed")
		}
		p.rest = after
		return value, nil
	}
	var value strings.Builder
	for {
		if rest == "" || rest[0] == '\n' {
			return "", errors.New("the quotes are not closed")
		}
		if rest[0] == quote {
			p.rest = rest[1:]
			return value.String(), nil
		}
		r, multibyte, after, err := strconv.UnquoteChar(rest, quote)
		if err != nil {
			return "", errors.New("the value holds an escape that is not known")
		}
		if r >= utf8.RuneSelf && !multibyte {
			return "", errors.New("the value holds a byte that is not UTF-8") // \xff
		}
		value.WriteRune(r)
		rest = after
	}
}
