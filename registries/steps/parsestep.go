package steps

import (
	"fmt"
	"net/http"
	"net/textproto"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"lastcall/internal/fetch"
)

func methods() []string { return []string{"get", "head", "post", "put", "patch", "delete"} }

// headerName is what can be the name of a header (RFC 9110, 5.6.2).
var headerName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// conditionKeys are the keys that say how an answer's body must be.
func conditionKeys() []string { return []string{"when", "contains", "lacks", "number"} }

// steps reads a section.
func (p *parser) steps(n *yaml.Node, s section, servers bool) []step {
	clear(p.later)
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // nothing after the colon
	}
	if n.Kind != yaml.SequenceNode {
		p.wrong(n, "%s must be a list of calls: - get: http://…", s)
		return nil
	}
	if len(n.Content) > maxSteps {
		p.wrong(n, "%s has %d steps: at most %d are taken", s, len(n.Content), maxSteps)
		return nil
	}
	var all []step
	for _, entry := range n.Content {
		all = append(all, p.step(entry, s, servers))
	}
	return all
}

func (p *parser) step(n *yaml.Node, s section, servers bool) step {
	n = resolve(n)
	what := "a step of " + string(s)
	st := step{at: fmt.Sprintf("%s:%d", p.name, n.Line)}
	keys := append(methods(), "body", "headers", "token_file", "token_header", "timeout", "ok", "set")
	keys = append(keys, conditionKeys()...)
	for _, v := range s.allowed() {
		keys = append(keys, string(v))
	}
	entries := p.mapping(n, what, keys)
	for _, method := range methods() {
		at := entries[method]
		switch {
		case at == nil:
		case st.method != "":
			p.wrong(at, "%s makes two calls, %s and %s: make each a step of its own", what, st.method, method)
		default:
			st.method, st.url = method, p.text(at, method)
			p.address(at, st.url, servers)
		}
	}
	if st.method == "" && n.Kind == yaml.MappingNode {
		p.wrong(n, "%s has no call: one of %s and a URL", what, list(methods()))
	}
	if body := entries["body"]; body != nil {
		if resolve(body).Kind != yaml.ScalarNode {
			p.wrong(body, `body must be a text, in quotes where it is JSON: body: '{"a": 1}'`)
		} else {
			st.body = p.text(body, "body")
		}
		if st.method == "get" || st.method == "head" {
			p.wrong(body, "a %s has no body", st.method)
		}
	}
	st.headers = p.headers(entries["headers"])
	st.token = p.token(entries)
	if at := entries["timeout"]; at != nil {
		st.timeout = p.duration(at)
	}
	if ok := entries["ok"]; ok != nil {
		for _, code := range p.entries(ok, "ok") {
			st.ok = append(st.ok, p.code(code, "ok"))
		}
	}
	st.expected = p.conditions(entries)
	for _, v := range s.allowed() {
		if at := entries[string(v)]; at != nil {
			for _, entry := range p.entries(at, string(v)) {
				st.outcomes = append(st.outcomes, p.outcome(entry, v, entries["set"] != nil))
			}
		}
	}
	if set := entries["set"]; set != nil {
		st.set = p.assignments(set, s)
	}
	return st
}

// address checks where a call goes.
func (p *parser) address(n *yaml.Node, url text, servers bool) {
	switch sample := url.raw; {
	case strings.HasPrefix(sample, "/"):
		if !servers {
			p.wrong(n, "%q is a path, which needs servers: at the top of the file; or write a whole URL", sample)
		}
	case strings.Contains(sample, "${"): // checked with its values, by each call
	default:
		if _, ok := fetch.Address(sample); !ok {
			p.wrong(n, "the address must be an http:// or https:// URL, with special characters in a password percent-encoded, or a path such as /status")
		}
	}
}

func (p *parser) headers(n *yaml.Node) []header {
	if n == nil {
		return nil
	}
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "headers must be a mapping: {Accept: application/json}")
		return nil
	}
	var all []header
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if !headerName.MatchString(name) {
			p.wrong(n.Content[i], "%q cannot be the name of a header", name)
			continue
		}
		all = append(all, header{textproto.CanonicalMIMEHeaderKey(name), p.text(n.Content[i+1], "the header "+name)})
	}
	return all
}

func (p *parser) token(entries map[string]*yaml.Node) token {
	var t token
	if n := entries["token_file"]; n != nil {
		t.file = p.text(n, "token_file")
	}
	if n := entries["token_header"]; n != nil {
		t.header, _ = p.scalar(n, "token_header")
		if !headerName.MatchString(t.header) {
			p.wrong(n, "token_header: %q cannot be the name of a header", t.header)
		}
		if entries["token_file"] == nil {
			p.wrong(n, "token_header needs token_file, which holds what is sent in it")
		}
	}
	return t
}

func (p *parser) tls(n *yaml.Node) tlsFiles {
	if n == nil {
		return tlsFiles{}
	}
	entries := p.mapping(n, "tls", []string{"ca", "cert", "key", "server_name", "insecure"})
	t := tlsFiles{set: true}
	for key, to := range map[string]*text{"ca": &t.ca, "cert": &t.cert, "key": &t.key, "server_name": &t.serverName} {
		if at := entries[key]; at != nil {
			*to = p.text(at, "tls."+key)
		}
	}
	if (entries["cert"] == nil) != (entries["key"] == nil) {
		p.wrong(n, "tls has one of cert and key: set both, or none")
	}
	if at := entries["insecure"]; at != nil {
		t.insecure = p.yes(at, "tls.insecure")
	}
	return t
}

// conditions reads the conditions among the entries of a step or an outcome.
func (p *parser) conditions(entries map[string]*yaml.Node) []condition {
	var all []condition
	each := func(key string, parse func(n *yaml.Node, raw string) (condition, []text, error)) {
		if entries[key] == nil {
			return
		}
		for _, n := range p.entries(entries[key], key) {
			raw, ok := p.scalar(n, key)
			if !ok {
				continue
			}
			c, texts, err := parse(n, raw)
			if err != nil {
				p.wrong(n, "%s: %v", key, err)
				continue
			}
			for _, t := range texts {
				p.known(n, key, t)
			}
			all = append(all, c)
		}
	}
	each("when", func(_ *yaml.Node, raw string) (condition, []text, error) {
		c, err := parseComparison(raw)
		if err != nil {
			return nil, nil, err
		}
		return c, []text{c.path, c.value}, nil
	})
	each("number", func(_ *yaml.Node, raw string) (condition, []text, error) {
		c, err := parseNumber(raw)
		if err != nil {
			return nil, nil, err
		}
		return c, []text{c.pattern, c.value}, nil
	})
	for _, key := range []string{"contains", "lacks"} {
		each(key, func(_ *yaml.Node, raw string) (condition, []text, error) {
			t, err := parseText(raw)
			if err == nil && raw == "" {
				err = fmt.Errorf("must not be empty: each answer contains that")
			}
			return holding{t, key == "contains"}, []text{t}, err
		})
	}
	return all
}

// outcome reads an entry of done, never and so on: a code, one of the words
// missing, refused and timeout, or a mapping.
func (p *parser) outcome(n *yaml.Node, v verdict, sets bool) outcome {
	n = resolve(n)
	o := outcome{verdict: v}
	switch n.Kind {
	case yaml.ScalarNode:
		p.outcomeWord(n, &o, sets)
	case yaml.MappingNode:
		entries := p.mapping(n, "an entry of "+string(v), append([]string{"code", "because"}, conditionKeys()...))
		if at := entries["code"]; at != nil {
			for _, code := range p.entries(at, "code") {
				if len(entries) == 1 || len(entries) == 2 && entries["because"] != nil {
					p.outcomeWord(code, &o, sets)
				} else {
					o.codes = append(o.codes, p.code(code, "code"))
				}
			}
		}
		o.when = p.conditions(entries)
		if at := entries["because"]; at != nil {
			o.because, _ = p.scalar(at, "because")
		}
		if len(o.when) == 0 && entries["code"] == nil {
			p.wrong(n, "an entry of %s needs a code, or a condition (%s), or both", v, list(conditionKeys()))
		}
	default:
		p.wrong(n, "an entry of %s must be a status code, or a mapping with code and a condition", v)
	}
	return o
}

func (p *parser) outcomeWord(n *yaml.Node, o *outcome, sets bool) {
	switch resolve(n).Value {
	case "refused":
		o.refused = true
	case "timeout":
		o.timeout = true
	case "missing":
		o.missing = true
		if !sets {
			p.wrong(n, "missing is for steps with set: what is to be set is not in the answer")
		}
	default:
		if code := p.code(n, string(o.verdict)); code != 0 {
			o.codes = append(o.codes, code)
		}
	}
}

// assignments reads the variables that a step sets.
func (p *parser) assignments(n *yaml.Node, s section) []assignment {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "set must be a mapping of names to paths: {id: nodes.0.id}")
		return nil
	}
	var all []assignment
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		path := p.text(n.Content[i+1], "set")
		_, fixed := p.source.given[name]
		switch {
		case !variableName.MatchString(name):
			p.wrong(n.Content[i], "set: %q cannot be the name of a variable: letters, digits and _", name)
		case fixed || strings.HasPrefix(name, "LASTCALL_"):
			p.wrong(n.Content[i], "set: %s is a variable of lastcall: take another name", name)
		default:
			all = append(all, assignment{name, path})
		}
	}
	for _, a := range all {
		if s == find {
			p.found[a.name] = true
		} else {
			p.later[a.name] = true
		}
	}
	return all
}

// verb is the method as HTTP has it.
func (s *step) verb() string {
	if s.method == "" {
		return http.MethodGet
	}
	return strings.ToUpper(s.method)
}
