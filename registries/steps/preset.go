package steps

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"lastcall/drain"
	"lastcall/internal/fetch"
	"lastcall/internal/lazyregexp"
)

//go:embed presets/*.yaml
var presetFiles embed.FS

// Preset is a file that is embedded in the program and selected by its name.
type Preset struct {
	Name string
	// Settings points to a struct with the preset's variables, in the format of
	// package settings. It is filled from the environment before New is called.
	Settings any

	head   presetHead
	root   *yaml.Node
	broken error
}

// presetHead is the value of the key preset in a preset's file.
type presetHead struct {
	About         string              `yaml:"about"`
	ServerCache   string              `yaml:"server_cache"`
	ClientRefresh string              `yaml:"client_refresh"`
	Variables     map[string]variable `yaml:"variables"`
}

// variable is a variable of a preset.
type variable struct {
	About    string   `yaml:"about"`
	Default  string   `yaml:"default"`  // may contain ${LASTCALL_POD_NAME} and the like
	Required bool     `yaml:"required"` // it must not be empty
	Secret   string   `yaml:"secret"`   // as in package settings: true, or url
	OneOf    []string `yaml:"one_of"`
}

// Presets returns all presets, by name. A preset that is not wanted is not
// parsed: only the names of its variables are known, without defaults, and its
// New fails. New also returns any mistake in the file of a wanted preset; the
// tests find these.
func Presets(wanted func(name string) bool) []*Preset {
	entries, err := presetFiles.ReadDir("presets")
	if err != nil {
		return nil // an embedded folder always exists
	}
	var all []*Preset
	for _, entry := range entries {
		p := &Preset{Name: strings.TrimSuffix(entry.Name(), ".yaml")}
		content, err := presetFiles.ReadFile(path.Join("presets", entry.Name()))
		switch {
		case err != nil:
			p.broken = err
		case wanted(p.Name):
			p.broken = p.read(content)
		default:
			p.skim(content)
		}
		p.Settings = reflect.New(reflect.StructOf(p.fields())).Interface()
		all = append(all, p)
	}
	return all
}

// declared matches the declaration of a variable in a preset's file.
var declared = lazyregexp.New(`(?m)^    (LASTCALL_[A-Z0-9_]+):$`)

// skim takes only the names of the variables from a preset's file. That costs
// next to nothing: a sidecar that uses no preset must not pay for them.
func (p *Preset) skim(content []byte) {
	p.broken = fmt.Errorf("preset %s was not read", p.Name)
	p.head.Variables = map[string]variable{}
	for _, match := range declared().FindAllSubmatch(content, -1) {
		p.head.Variables[string(match[1])] = variable{}
	}
}

// read parses the preset's file.
func (p *Preset) read(content []byte) (err error) {
	if p.root, err = document("preset "+p.Name, content); err != nil {
		return err
	}
	for i := 0; i+1 < len(p.root.Content); i += 2 {
		if p.root.Content[i].Value != "preset" {
			continue
		}
		if err := p.root.Content[i+1].Decode(&p.head); err != nil {
			return fmt.Errorf("preset %s: %w", p.Name, err)
		}
	}
	if _, err := time.ParseDuration(p.head.ClientRefresh); err != nil || p.head.About == "" {
		return fmt.Errorf("preset %s: needs about and client_refresh", p.Name)
	}
	return nil
}

// fields returns the struct fields of the preset's variables.
func (p *Preset) fields() []reflect.StructField {
	var fields []reflect.StructField
	add := func(name, def, about, secret string, kind reflect.Type) {
		tag := fmt.Sprintf("envconfig:%s desc:%s", strconv.Quote(name), strconv.Quote(about))
		if def != "" {
			tag += " default:" + strconv.Quote(def)
		}
		if secret != "" {
			tag += " secret:" + strconv.Quote(secret)
		}
		fields = append(fields, reflect.StructField{
			Name: "V" + strconv.Itoa(len(fields)), Type: kind, Tag: reflect.StructTag(tag),
		})
	}
	for _, name := range p.names() {
		v := p.head.Variables[name]
		add(name, v.Default, v.About, v.Secret, reflect.TypeFor[string]())
	}
	add(p.refreshName(), p.head.ClientRefresh,
		"preset "+p.Name+": how long clients may use what they were told, once the pod is seen to be withdrawn", "", reflect.TypeFor[time.Duration]())
	return fields
}

func (p *Preset) names() []string { return slices.Sorted(maps.Keys(p.head.Variables)) }

func (p *Preset) refreshName() string {
	return "LASTCALL_" + strings.ToUpper(p.Name) + "_CLIENT_REFRESH"
}

// New returns the preset's registry for the pod, from Settings. It makes no
// call. The error joins all mistakes, each with the variable's name.
func (p *Preset) New(pod drain.Pod) (drain.NamedRegistry, error) {
	if p.broken != nil {
		return drain.NamedRegistry{}, p.broken
	}
	var mistakes []error
	values := reflect.ValueOf(p.Settings).Elem()
	from := source{given: map[string]string{}, secret: map[string]bool{}, pod: pod}
	for i, name := range p.names() {
		v := p.head.Variables[name]
		value, err := p.withPod(name, values.Field(i).String(), v, pod)
		mistakes = append(mistakes, err)
		from.given[name], from.secret[name] = value, v.Secret == "true"
	}
	refresh := time.Duration(values.Field(values.NumField() - 1).Int())
	if refresh < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s=%v: must not be negative", p.refreshName(), refresh))
	}
	if err := errors.Join(mistakes...); err != nil {
		return drain.NamedRegistry{}, err
	}
	read := &parser{name: "preset " + p.Name, source: from, isPreset: true}
	r, err := read.registry(p.root)
	if err != nil {
		return drain.NamedRegistry{}, err
	}
	cache, _ := time.ParseDuration(p.head.ServerCache) // zero if it is not set
	return drain.NamedRegistry{Name: p.Name, Registry: r, ServerCache: cache, ClientRefresh: refresh}, nil
}

// withPod checks a variable's value. If the value is the default, it inserts
// what is known of the pod.
func (p *Preset) withPod(name, value string, v variable, pod drain.Pod) (string, error) {
	switch {
	case value == "" && v.Required:
		return "", fmt.Errorf("%s is not set: preset %s needs %s", name, p.Name, v.About)
	case len(v.OneOf) > 0 && !slices.Contains(v.OneOf, value):
		return "", fmt.Errorf("%s=%q: must be one of %s", name, value, strings.Join(v.OneOf, ", "))
	case v.Secret == "url" && value != "":
		for _, one := range strings.Split(value, ",") {
			if _, err := fetch.ParseURL(name, strings.TrimSpace(one), cmp.Or(v.Default, "http://10.0.0.1:8080")); err != nil {
				return "", err
			}
		}
		return strings.TrimRight(value, "/"), nil
	case value != v.Default || !strings.Contains(value, "${"):
		return value, nil
	}
	t, err := parseText(value)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	known := map[string]string{}
	for _, needed := range t.names() {
		got, ok := source{pod: pod}.lookup(needed)
		if !ok {
			return "", fmt.Errorf("%s is not set, and its default needs %s: set one of them", name, needed)
		}
		known[needed] = got
	}
	return t.expand(values{fixed: known}, nil)
}
