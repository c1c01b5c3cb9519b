package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"lastcall/internal/lazyregexp"
	"lastcall/internal/settings"
)

// parser parses a file and collects its mistakes.
type parser struct {
	name     string
	source   source
	isPreset bool
	mistakes []mistake

	fixed map[string]string // values of the file's variables that are fixed at start
	found map[string]bool   // variables that find sets
	later map[string]bool   // variables that earlier steps of the section set
}

type mistake struct {
	line int
	text string
}

func (p *parser) wrong(n *yaml.Node, format string, args ...any) {
	p.mistakes = append(p.mistakes, mistake{n.Line, fmt.Sprintf(format, args...)})
}

// err joins all mistakes, by line.
func (p *parser) err() error {
	slices.SortStableFunc(p.mistakes, func(a, b mistake) int { return a.line - b.line })
	errs := make([]error, len(p.mistakes))
	for i, m := range p.mistakes {
		errs[i] = fmt.Errorf("%s:%d: %s", p.name, m.line, m.text)
	}
	return errors.Join(errs...)
}

// document parses YAML that contains one mapping.
func document(name string, content []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: is not YAML: %w", lineOf(name, err), err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:1: must be a mapping with the keys %s", name, list(sectionNames()))
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: holds a second document: write each into a file of its own", name, max(second.Line, 1))
	}
	return doc.Content[0], nil
}

var yamlLine = lazyregexp.New(`line (\d+)`)

func lineOf(name string, err error) string {
	if m := yamlLine().FindStringSubmatch(err.Error()); m != nil {
		return name + ":" + m[1]
	}
	return name
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, string(s))
	}
	return names
}

// parse parses a file. The error joins all its mistakes, each with its line and
// what would be correct.
func (p *parser) parse(root *yaml.Node) (*file, error) {
	f := &file{name: p.name, timeout: defaultTimeout, sections: map[section][]step{}}
	p.fixed, p.found, p.later = map[string]string{}, map[string]bool{}, map[string]bool{}
	keys := append([]string{"servers", "headers", "token_file", "token_header", "tls", "timeout"}, sectionNames()...)
	if p.isPreset {
		keys = append(keys, "preset")
	}
	entries := p.mapping(root, "the file", keys)
	if n := entries["servers"]; n != nil {
		f.servers = p.texts(n, "servers")
	}
	f.headers = p.headers(entries["headers"])
	f.token = p.token(entries)
	f.tls = p.tls(entries["tls"])
	if n := entries["timeout"]; n != nil {
		f.timeout = p.duration(n)
	}
	if n := entries[string(listed)]; n != nil && resolve(n).Kind == yaml.ScalarNode {
		f.unlisted = !p.yes(n, "listed")
		delete(entries, string(listed)) // otherwise it is a section
	}
	for _, s := range sections() { // find comes first: it sets variables that the others use
		if n := entries[string(s)]; n != nil {
			f.sections[s] = p.steps(n, s, len(f.servers) > 0)
		}
	}
	switch {
	case len(p.mistakes) > 0:
	case len(f.sections[withdraw]) == 0 && len(f.sections[withdrawn]) == 0:
		p.wrong(root, "has neither withdraw nor withdrawn: there is nothing to do and nothing to wait for")
	case len(f.sections[leftover]) > 0 && len(f.sections[restore]) == 0:
		p.wrong(entries["leftover"], "leftover needs restore, which undoes the leftover")
	}
	return f, p.err()
}

// mapping returns the entries of a mapping. Only these keys are allowed.
func (p *parser) mapping(n *yaml.Node, what string, keys []string) map[string]*yaml.Node {
	entries := map[string]*yaml.Node{}
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "%s must be a mapping with the keys %s", what, list(keys))
		return entries
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case !slices.Contains(keys, key.Value):
			p.unknown(key, what, keys)
		case entries[key.Value] != nil:
			p.wrong(key, "%s is there twice in %s", key.Value, what)
		default:
			entries[key.Value] = value
		}
	}
	return entries
}

func (p *parser) unknown(key *yaml.Node, what string, keys []string) {
	if near := settings.Nearest(key.Value, keys); near != "" {
		p.wrong(key, "%q is not a key of %s: is %s meant?", key.Value, what, near)
		return
	}
	p.wrong(key, "%q is not a key of %s: they are %s", key.Value, what, list(keys))
}

// resolve returns the node that an alias refers to.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// scalar returns the text of a scalar, and reports whether n is one.
func (p *parser) scalar(n *yaml.Node, what string) (string, bool) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.wrong(n, "%s must be a text", what)
		return "", false
	}
	return n.Value, true
}

// text parses a text. Its variables must have values.
func (p *parser) text(n *yaml.Node, what string) text {
	raw, ok := p.scalar(n, what)
	if !ok {
		return text{}
	}
	t, err := parseText(raw)
	if err != nil {
		p.wrong(n, "%s: %v", what, err)
		return text{}
	}
	p.known(n, what, t)
	return t
}

// known records the values of a text's variables.
func (p *parser) known(n *yaml.Node, what string, t text) {
	for _, part := range t.parts {
		if part.name == "" || p.found[part.name] || p.later[part.name] {
			continue
		}
		value, has := p.source.lookup(part.name)
		switch {
		case has:
			p.fixed[part.name] = value
		case !part.hasFallback:
			p.wrong(n, "%s: %s", what, p.unset(part.name))
		}
	}
}

func (p *parser) unset(name string) string {
	names := slices.Sorted(maps.Keys(p.found))
	names = append(names, slices.Sorted(maps.Keys(p.later))...)
	if near := settings.Nearest(name, names); near != "" {
		return fmt.Sprintf("${%s} is neither set in the environment nor by an earlier step: is %s meant?", name, near)
	}
	switch name {
	case "LASTCALL_POD_NAME", "LASTCALL_HOST_IP":
		return fmt.Sprintf("${%s} is not set: set it by the downward API", name)
	case "LASTCALL_APP_PORT":
		return "${LASTCALL_APP_PORT} is not set: set it to the app's port"
	}
	return fmt.Sprintf("${%s} is neither set in the environment nor by a step of find, or an earlier one of this section: set it, or write ${%s:-default}", name, name)
}

// entries returns the entries of a list, or n itself if it is a single value.
func (p *parser) entries(n *yaml.Node, what string) []*yaml.Node {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	if len(n.Content) > maxList {
		p.wrong(n, "%s has %d entries: at most %d are allowed", what, len(n.Content), maxList)
		return nil
	}
	return n.Content
}

func (p *parser) texts(n *yaml.Node, what string) []text {
	var all []text
	for _, entry := range p.entries(n, what) {
		all = append(all, p.text(entry, what))
	}
	return all
}

func (p *parser) duration(n *yaml.Node) time.Duration {
	value, _ := p.scalar(n, "timeout")
	d, err := time.ParseDuration(value)
	if err != nil || d < minTimeout || d > maxTimeout {
		p.wrong(n, "timeout: %q must be a duration from %v to %v, such as 2s", value, minTimeout, maxTimeout)
		return defaultTimeout
	}
	return d
}

func (p *parser) yes(n *yaml.Node, what string) bool {
	value := resolve(n).Value
	if value != "true" && value != "false" {
		p.wrong(n, "%s: %q must be true or false", what, value)
	}
	return value == "true"
}

// code parses an HTTP status code.
func (p *parser) code(n *yaml.Node, what string) int {
	value, _ := p.scalar(n, what)
	code, err := strconv.Atoi(value)
	if err != nil || code < 100 || code > 599 {
		p.wrong(n, "%s: %q must be an HTTP status code, such as 404", what, value)
	}
	return code
}
