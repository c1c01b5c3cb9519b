package steps

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"go.yaml.in/yaml/v3"

	"lastcall/internal/fetch"
	"lastcall/internal/lazyregexp"
)

func methods() []string { return []string{"get", "head", "post", "put", "patch", "delete"} }

// headerName matches the name of a header (RFC 9110, 5.6.2).
var headerName = lazyregexp.New("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// conditionKeys returns the keys for conditions on an answer's body.
func conditionKeys() []string { return []string{"when", "contains", "lacks", "number"} }

// steps parses a section.
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
		p.wrong(n, "%s has %d steps: at most %d are allowed", s, len(n.Content), maxSteps)
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

// address checks the address of a call.
func (p *parser) address(n *yaml.Node, url text, servers bool) {
	switch sample := url.raw; {
	case strings.HasPrefix(sample, "/"):
		if !servers {
			p.wrong(n, "%q is a path, which needs servers: at the top of the file; or write a whole URL", sample)
		}
	case strings.Contains(sample, "${"): // each call checks it with its values
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
		if !headerName().MatchString(name) {
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
		if !headerName().MatchString(t.header) {
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

// verb returns the method in HTTP's notation.
func (s *step) verb() string {
	if s.method == "" {
		return http.MethodGet
	}
	return strings.ToUpper(s.method)
}
