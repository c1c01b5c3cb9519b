package steps

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"lastcall/internal/lazyregexp"
)

// secretHeader matches names of headers whose values are not shown.
var secretHeader = lazyregexp.New(`(?i)(authorization|token|secret|password|api-?key|cookie)`)

// show returns a file with the values of the variables that are fixed in it,
// and with *** for secrets. The file must have been parsed without a mistake.
func show(root *yaml.Node, fixed values, isSecret func(string) bool) string {
	masked := map[string]string{}
	for name, value := range fixed.fixed {
		if isSecret(name) && value != "" {
			value = "***"
		}
		masked[name] = value
	}
	shown := effective(root, values{fixed: masked}, "")
	out, err := yaml.Marshal(shown)
	if err != nil {
		return "# cannot be shown: " + err.Error() + "\n"
	}
	return string(out)
}

// effective returns a copy of n with values for its variables. within is the
// key of the mapping that contains n, if that matters.
func effective(n *yaml.Node, masked values, within string) *yaml.Node {
	n = resolve(n)
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Style: n.Style, Value: n.Value}
	if n.Kind == yaml.ScalarNode {
		c.Value = hide(partly(n.Value, masked), nil)
		return c
	}
	for i, child := range n.Content {
		if n.Kind != yaml.MappingNode {
			c.Content = append(c.Content, effective(child, masked, ""))
			continue
		}
		key := n.Content[i-i%2].Value
		switch {
		case i%2 == 0 && key == "preset" && within == "":
		case i%2 == 0:
			c.Content = append(c.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key, Style: child.Style, Tag: child.Tag})
		case key == "preset" && within == "":
		case within == "headers" && secretHeader().MatchString(key):
			c.Content = append(c.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "***"})
		default:
			c.Content = append(c.Content, effective(child, masked, key))
		}
	}
	return c
}

// partly replaces the variables whose values are known, and leaves the others
// as they are.
func partly(raw string, known values) string {
	t, err := parseText(raw)
	if err != nil {
		return raw
	}
	var b strings.Builder
	for _, p := range t.parts {
		value, has := known.get(p.name)
		switch {
		case p.name == "":
			b.WriteString(p.literal)
		case p.hasFallback && value == "":
			b.WriteString(p.fallback)
		case has:
			b.WriteString(value)
		default:
			b.WriteString("${" + p.name + "}")
		}
	}
	return b.String()
}
