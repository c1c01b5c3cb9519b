package haproxy

import (
	"slices"
	"strings"
	"testing"
)

func TestParseWhole(t *testing.T) {
	pid, conns, err := parseWhole(recorded(t, "whole.html"))
	if err != nil || pid < 1 || conns != 2 {
		t.Fatalf("got %d, %d, %v, want 2 connections", pid, conns, err)
	}
	page := string(recorded(t, "whole.html"))
	half, _, _ := strings.Cut(page, "current conns")
	for name, bad := range map[string]string{
		"nothing":       "",
		"another's":     "<html></html>",
		"CSV":           string(recorded(t, "page.csv")),
		"cut short":     half,
		"a huge number": strings.Replace(page, "current conns = 2;", "current conns = 99999999999;", 1),
	} {
		if pid, conns, err := parseWhole([]byte(bad)); err == nil {
			t.Errorf("%s was read as %d, %d", name, pid, conns)
		}
	}
}

func FuzzParseWhole(f *testing.F) {
	f.Add(recorded(f, "whole.html"))
	f.Fuzz(func(t *testing.T, page []byte) {
		if pid, conns, err := parseWhole(page); err == nil && (pid < 0 || conns < 0) {
			t.Fatalf("%d, %d", pid, conns)
		}
	})
}

func TestAlternatives(t *testing.T) {
	for pattern, want := range map[string][]string{
		"web":              {"web"},
		"^web$":            {"^web$"},
		"web|api":          {"web", "api"},
		"^web$|^api$":      {"^web$", "^api$"},
		"^(web|api)$":      {"^(?:web)$", "^(?:api)$"},
		"^(?:web|api)$":    {"^(?:web)$", "^(?:api)$"},
		"(web|api)":        {"(?:web)", "(?:api)"},
		"^(web|api)-in$":   {"^(web|api)-in$"},
		"^(a)(b|c)$":       {"^(a)(b|c)$"},
		"^(a|b)c(d|e)$":    {"^(a|b)c(d|e)$"},
		`a\|b`:             {`a\|b`},
		"[|]":              {"[|]"},
		"[]|]x|y":          {"[]|]x", "y"},
		"^(in-(a|b)|out)$": {"^(?:in-(a|b))$", "^(?:out)$"},
		"":                 {""},
	} {
		if got := alternatives(pattern); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", pattern, got, want)
		}
	}
}

func FuzzAlternatives(f *testing.F) {
	f.Add("^(web|api)$", "web")
	f.Add("[", "a")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		n, err := compile(pattern)
		if err != nil {
			return
		}
		if len(n.alternatives) == 0 {
			t.Fatal("no alternative")
		}
		if n.matchesNone([]frontend{{name: name}}) == nil && !n.MatchString(name) {
			t.Fatalf("%q is each part of %q, and does not match the whole", name, pattern)
		}
	})
}
