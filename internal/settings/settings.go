// Package settings reads the environment into structs whose fields have the tags of
// github.com/kelseyhightower/envconfig, and reports all mistakes at once.
//
// A field's tags are the full name of its variable (envconfig), its default, its
// description (desc), and how it is masked when printed (secret: "true" masks the
// whole value; "url" masks the userinfo and query of a URL, or of each URL of a
// list; a value that is not a URL is masked completely).
package settings

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// Variable is one environment variable.
type Variable struct {
	Name    string
	Value   string // the current value, masked
	Set     bool
	Default string
	Desc    string
}

// Read sets the fields of the structs that specs point to. Its error lists every
// value that cannot be parsed, each with the name of its variable and what a valid
// value is.
func Read(specs ...any) error {
	var mistakes []error
	for _, spec := range specs {
		for field, value := range fields(spec) {
			mistakes = append(mistakes, read(field, value))
		}
	}
	return errors.Join(mistakes...)
}

// read sets one field. envconfig stops at the first value that it cannot parse, so
// it gets one field at a time.
func read(field reflect.StructField, value reflect.Value) error {
	name := field.Tag.Get("envconfig")
	alone := reflect.New(reflect.StructOf([]reflect.StructField{field}))
	err := envconfig.Process("", alone.Interface())
	if err == nil {
		value.Set(alone.Elem().Field(0))
		return nil
	}
	set := os.Getenv(name)
	switch right := kind(field.Type); {
	case set == "":
		return fmt.Errorf("%s is set and empty: remove it, or set it to %s", name, right)
	case strings.HasPrefix(set, "tcp://"):
		return fmt.Errorf("%s=%q is what Kubernetes sets for a Service of that name: set the variable in the container, or enableServiceLinks: false in the pod", name, set)
	case field.Tag.Get("secret") != "":
		return fmt.Errorf("%s: must be %s", name, right)
	default:
		return fmt.Errorf("%s=%q: must be %s", name, set, right)
	}
}

// kind describes the values of type t in errors.
func kind(t reflect.Type) string {
	switch {
	case t.PkgPath() == "time" && t.Name() == "Duration":
		return "a duration such as 500ms, 30s or 2m"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Int:
		return "a whole number, or a comma-separated list of them"
	case t.Kind() == reflect.Slice:
		return "a comma-separated list"
	case t.Kind() == reflect.String:
		return "a text"
	default:
		return "a whole number"
	}
}

// Variables lists the variables of all specs, in order.
func Variables(specs ...any) []Variable {
	var all []Variable
	for _, spec := range specs {
		for field := range fields(spec) {
			v := Variable{
				Name:    field.Tag.Get("envconfig"),
				Default: field.Tag.Get("default"),
				Desc:    field.Tag.Get("desc"),
			}
			v.Value, v.Set = os.LookupEnv(v.Name)
			switch {
			case v.Value == "":
			case field.Tag.Get("secret") == "true":
				v.Value = "***"
			case field.Tag.Get("secret") == "url":
				v.Value = maskURLs(v.Value, field.Type.Kind() == reflect.Slice)
			}
			all = append(all, v)
		}
	}
	return all
}

// Unknown returns an error that lists every variable of environ (in the format of
// os.Environ) that starts with prefix and belongs to none of the specs: a
// misspelled name must not go unnoticed. Variables that Kubernetes itself sets for
// a Service whose name starts with the prefix are not mistakes.
func Unknown(prefix string, environ []string, specs ...any) error {
	known := map[string]bool{}
	for _, spec := range specs {
		for field := range fields(spec) {
			known[field.Tag.Get("envconfig")] = true
		}
	}
	set := map[string]bool{}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		set[name] = true
	}
	var mistakes []error
	for name := range set {
		if !strings.HasPrefix(name, prefix) || known[name] || serviceLink(name, set) {
			continue
		}
		if near := nearest(name, known); near != "" {
			mistakes = append(mistakes, fmt.Errorf("%s is not a variable of lastcall: is %s meant?", name, near))
			continue
		}
		mistakes = append(mistakes, fmt.Errorf("%s is not a variable of lastcall: `lastcall config` lists them all", name))
	}
	slices.SortFunc(mistakes, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(mistakes...)
}

// link matches the variables that the kubelet sets for each Service of the
// namespace (service links): FOO_SERVICE_HOST, FOO_PORT_80_TCP_ADDR, …
var link = regexp.MustCompile(`^(.+?)_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func serviceLink(name string, set map[string]bool) bool {
	m := link.FindStringSubmatch(name)
	return m != nil && set[m[1]+"_SERVICE_HOST"] && set[m[1]+"_SERVICE_PORT"]
}

// Nearest returns the known name that is closest to name, or "" if none is close.
func Nearest(name string, known []string) string {
	set := map[string]bool{}
	for _, k := range known {
		set[k] = true
	}
	return nearest(name, set)
}

// nearest returns the known name that is closest to name, or "" if none is close.
func nearest(name string, known map[string]bool) string {
	best, least := "", 3
	for other := range known {
		if d := distance(name, other); d < least || d == least && other < best {
			best, least = other, d
		}
	}
	return best
}

// distance is the number of characters to insert, remove or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// fields iterates over the fields of the struct that spec points to.
func fields(spec any) func(yield func(reflect.StructField, reflect.Value) bool) {
	return func(yield func(reflect.StructField, reflect.Value) bool) {
		v := reflect.ValueOf(spec).Elem()
		for i := range v.NumField() {
			if !yield(v.Type().Field(i), v.Field(i)) {
				return
			}
		}
	}
}
