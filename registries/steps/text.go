package steps

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/tidwall/gjson"

	"lastcall/internal/lazyregexp"
)

// text is a string of a file. Each ${NAME} in it stands for a variable's value.
type text struct {
	raw   string
	parts []part
}

// part is a piece of a text: a literal, or a variable's name.
type part struct {
	literal     string
	name        string
	fallback    string // of ${NAME:-fallback}
	hasFallback bool
}

var variableName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

// parseText parses a text. The value of a variable is not parsed again, so
// nothing in it is taken for another variable.
func parseText(raw string) (text, error) {
	t := text{raw: raw}
	rest := raw
	for {
		before, after, found := strings.Cut(rest, "${")
		if before != "" {
			t.parts = append(t.parts, part{literal: before})
		}
		if !found {
			return t, nil
		}
		inside, remaining, closed := strings.Cut(after, "}")
		name, fallback, has := strings.Cut(inside, ":-")
		if !closed || !variableName().MatchString(name) {
			return t, fmt.Errorf("%q: write a variable as ${NAME}, or ${NAME:-default}", "${"+inside)
		}
		t.parts = append(t.parts, part{name: name, fallback: fallback, hasFallback: has})
		rest = remaining
	}
}

// names returns the variables that must have a value.
func (t text) names() []string {
	var names []string
	for _, p := range t.parts {
		if p.name != "" && !p.hasFallback {
			names = append(names, p.name)
		}
	}
	return names
}

// escape adapts a variable's value to the place where it is inserted. before is
// the text up to that place.
type escape func(before, value string) (string, error)

// expand inserts the variables' values. Its error names the variable and never
// its value.
func (t text) expand(values values, fit escape) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.name == "" {
			b.WriteString(p.literal)
			continue
		}
		value, known := values.get(p.name)
		if p.hasFallback && value == "" {
			value, known = p.fallback, true
		}
		if !known {
			return "", fmt.Errorf("${%s} has no value", p.name)
		}
		if fit != nil {
			var err error
			if value, err = fit(b.String(), value); err != nil {
				return "", fmt.Errorf("${%s}: %w", p.name, err)
			}
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// inURL escapes a value for its place in a URL. A value that stands for the
// scheme or host, or for a whole base URL, is not changed.
func inURL(before, value string) (string, error) {
	_, afterScheme, absolute := strings.Cut(before, "://")
	switch {
	case strings.Contains(before, "?"):
		return url.QueryEscape(value), nil
	case strings.HasPrefix(before, "/") || absolute && strings.Contains(afterScheme, "/"):
		return url.PathEscape(value), nil
	case strings.ContainsFunc(value, isControl) || strings.Contains(value, " "):
		return "", errors.New("holds a space or a control character, which no URL can")
	}
	return value, nil
}

// inBody escapes a value for a string in a JSON body. In other bodies the value
// is not changed.
func inBody(before, value string) (string, error) {
	if !looksLikeJSON(before) {
		return value, nil
	}
	quoted, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	return string(quoted[1 : len(quoted)-1]), nil
}

func looksLikeJSON(body string) bool {
	trimmed := strings.TrimLeft(body, " \t\r\n")
	return strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[")
}

// inHeader refuses a value that would begin another header.
func inHeader(_, value string) (string, error) {
	if strings.ContainsFunc(value, isControl) {
		return "", errors.New("holds a line break or another control character, which no header can")
	}
	return value, nil
}

// inPath escapes a value for a gjson path: within quotes as a string of a
// query, otherwise as the name of a key.
func inPath(before, value string) (string, error) {
	if strings.Count(before, `"`)%2 == 0 {
		return gjson.Escape(value), nil
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r == '"' || r == '\\' || isControl(r) }) {
		return "", errors.New("holds a quotation mark, a backslash or a control character, which a path cannot")
	}
	return value, nil
}

func inRegexp(_, value string) (string, error) { return regexp.QuoteMeta(value), nil }

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
