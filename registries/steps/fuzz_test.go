package steps

import (
	"strings"
	"testing"

	"lastcall/drain"
)

// FuzzFile parses arbitrary files: each is either accepted, or has mistakes
// that name a line.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"withdraw:\n- post: http://a/\n  body: '{\"x\": ${X:-1}}'\n  done: [500, {code: 404, contains: x, because: y}]\n",
		"servers: [http://a, http://b]\nfind:\n- get: /x\n  set: {id: 'a.#(b==\"c\").d'}\nwithdrawn:\n- get: /x/${id}\n  when: a.b == 1\n",
		"withdrawn:\n- get: http://a/\n  number: '^x (\\d+)$ == 0'\nrestore: []\nlistened: x\n", "&a [*a]", "a: &a {b: *a}", "<<: 1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		// Such a file could name files of this machine, which must not be read.
		if strings.Contains(content, "file") || strings.Contains(content, "tls") {
			return
		}
		root, err := document("f", []byte(content))
		if err != nil {
			return
		}
		p := &parser{name: "f", source: source{pod: drain.Pod{Name: "web-0", IP: "10.0.0.1"}}}
		r, err := p.registry(root)
		switch {
		case err == nil && r == nil:
			t.Error("neither a registry nor an error")
		case err != nil && !strings.HasPrefix(err.Error(), "f:"):
			t.Errorf("an error that names no line: %v", err)
		case err == nil:
			_ = r.Steps() // it can be shown
		}
	})
}

// FuzzConditions parses conditions, and evaluates them on a body.
func FuzzConditions(f *testing.F) {
	f.Add("a.b == 1", `{"a": {"b": 1}}`)
	f.Add(`a.#(b=="c").d != ""`, `{"a": [{"b": "c", "d": ""}]}`)
	f.Add("a exists", "[]")
	f.Add(`^x (\d+)$ <= 7`, "x 8\nx 6")
	f.Add("${A} > ${B:-2}", "{")
	f.Fuzz(func(t *testing.T, raw, body string) {
		if c, err := parseComparison(raw); err == nil {
			_, _ = c.holds([]byte(body), values{}.with(map[string]string{"A": "1"})) // whether it holds does not matter
			if c.String() != raw {
				t.Errorf("%q is shown as %q", raw, c.String())
			}
		}
		if n, err := parseNumber(raw); err == nil {
			_, _ = n.holds([]byte(body), values{}.with(map[string]string{"A": "1"}))
		}
	})
}

// FuzzText checks that a text equals the sum of its parts.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"a${B}c", "${A:-b}", "$${A}", "${A", "${}", "${A:-${B}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		parsed, err := parseText(raw)
		if err != nil {
			return
		}
		var back strings.Builder
		for _, p := range parsed.parts {
			switch {
			case p.name == "":
				back.WriteString(p.literal)
			case p.hasFallback:
				back.WriteString("${" + p.name + ":-" + p.fallback + "}")
			default:
				back.WriteString("${" + p.name + "}")
			}
		}
		if back.String() != raw {
			t.Errorf("%q is read as %q", raw, back.String())
		}
	})
}
