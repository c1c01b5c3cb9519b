package haproxy

import (
	"fmt"
	"regexp"
	"strings"
)

// named is LASTCALL_HAPROXY_FRONTENDS: a regular expression, and its
// alternatives.
type named struct {
	*regexp.Regexp
	alternatives []*regexp.Regexp
}

func compile(pattern string) (*named, error) {
	whole, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	n := &named{Regexp: whole}
	for _, one := range alternatives(pattern) {
		compiled, err := regexp.Compile(one)
		if err != nil {
			return &named{whole, []*regexp.Regexp{whole}}, nil //nolint:nilerr // a part is not a regular expression on its own
		}
		n.alternatives = append(n.alternatives, compiled)
	}
	return n, nil
}

// matchesNone returns an error that names an alternative which matches none of
// the frontends: the page may hide that frontend.
func (n *named) matchesNone(frontends []frontend) error {
	for _, one := range n.alternatives {
		found := false
		for _, f := range frontends {
			found = found || one.MatchString(f.name)
		}
		switch {
		case found:
		case len(n.alternatives) == 1:
			return fmt.Errorf("LASTCALL_HAPROXY_FRONTENDS=%s matches none of HAProxy's frontends %s", n, names(frontends))
		default:
			return fmt.Errorf("LASTCALL_HAPROXY_FRONTENDS=%s matches none of HAProxy's frontends %s with its part %s: each part must match one; "+
				"`stats scope` may hide it from the page", n, names(frontends), one)
		}
	}
	return nil
}

// alternatives returns the alternatives of a regular expression such as a|b or
// ^(a|b)$. For other expressions, it returns the whole expression.
func alternatives(pattern string) []string {
	if parts := split(pattern); len(parts) > 1 {
		return parts
	}
	inner, begin := strings.CutPrefix(pattern, "^")
	inner, end := strings.CutSuffix(inner, "$")
	for _, open := range []string{"(?:", "("} {
		body, found := strings.CutPrefix(inner, open)
		body, closed := strings.CutSuffix(body, ")")
		if !found || !closed {
			continue
		}
		parts := split(body)
		for i, part := range parts {
			parts[i] = "(?:" + part + ")"
			if begin {
				parts[i] = "^" + parts[i]
			}
			if end {
				parts[i] += "$"
			}
		}
		if len(parts) > 1 {
			return parts
		}
		break
	}
	return []string{pattern}
}

// split cuts a regular expression at each | outside of groups and classes.
func split(pattern string) []string {
	var parts []string
	depth, from, class := 0, 0, false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
			if strings.HasPrefix(pattern[i+1:], "]") || strings.HasPrefix(pattern[i+1:], "^]") {
				i += 2 // a class that begins with a bracket
			}
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth < 0 {
				return []string{pattern} // the parentheses are not one group
			}
		case c == '|' && depth == 0:
			parts = append(parts, pattern[from:i])
			from = i + 1
		}
	}
	return append(parts, pattern[from:])
}
