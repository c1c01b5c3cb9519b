package steps

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"
)

// conditions parses the conditions among the entries of a step or an outcome.
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
				err = errors.New("must not be empty: each answer contains that")
			}
			return holding{t, key == "contains"}, []text{t}, err
		})
	}
	return all
}

// outcome parses an entry of done, never and so on: a code, one of the words
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
			p.wrong(n, "missing is for steps with set: it means that a value for set is not in the answer")
		}
	default:
		if code := p.code(n, string(o.verdict)); code != 0 {
			o.codes = append(o.codes, code)
		}
	}
}

// assignments parses the variables that a step sets.
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
		case !variableName().MatchString(name):
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
