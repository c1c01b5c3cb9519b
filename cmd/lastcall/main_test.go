package main

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lastcall/internal/settings"
)

func TestCommands(t *testing.T) {
	environment(t)
	for _, test := range []struct {
		args          string
		code          int
		out, problems string
	}{
		{"version", exitOK, "lastcall dev, commit unknown", ""},
		{"-v", exitOK, "lastcall dev", ""},
		{"help", exitOK, "usage: lastcall [command]", ""},
		{"config", exitOK, "LASTCALL_LISTEN", ""},
		{"drian", exitBadInput, "", `there is no command "drian"`},
		{"config all", exitBadInput, "", "config takes no arguments"},
	} {
		var out, problems bytes.Buffer
		code := run(strings.Fields(test.args), &out, &problems)
		if code != test.code || !strings.Contains(out.String(), test.out) || !strings.Contains(problems.String(), test.problems) ||
			(out.Len() == 0) != (test.out == "") || (problems.Len() == 0) != (test.problems == "") {
			t.Errorf("%s: exit code %d, %q, %q", test.args, code, &out, &problems)
		}
	}
}

func TestErrorsAreCounted(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("a"), "lastcall: 1 configuration error:\n  a\n"},
		{errors.Join(errors.New("a"), errors.New("b")), "lastcall: 2 configuration errors:\n  a\n  b\n"},
	} {
		var out bytes.Buffer
		printErrors(&out, test.err)
		if out.String() != test.want {
			t.Errorf("printed %q, want %q", &out, test.want)
		}
	}
}

// TestCatalog: each variable belongs to one part, says what it is for, and is
// masked where it is a URL.
func TestCatalog(t *testing.T) {
	environment(t)
	seen := map[string]bool{}
	specs := append([]any{&config{}}, plugins(everyPreset).settings()...)
	urls := tagged(specs, "secret", "url")
	address := regexp.MustCompile(`_(URLS?|ADDR)$`)
	for _, v := range settings.Variables(specs...) {
		if address.MatchString(v.Name) && !slices.Contains(urls, v.Name) {
			t.Errorf(`%s needs the tag secret:"url"`, v.Name)
		}
		if !strings.HasPrefix(v.Name, "LASTCALL_") && !strings.HasPrefix(v.Name, "CONSUL_") {
			t.Errorf("%s: the name has another prefix", v.Name)
		}
		if seen[v.Name] {
			t.Errorf("%s is there twice", v.Name)
		}
		if v.Desc == "" {
			t.Errorf("%s does not say what it is for", v.Name)
		}
		seen[v.Name] = true
	}
}
