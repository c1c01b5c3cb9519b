package haproxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"lastcall/internal/fetch"
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

// The two parts of the page are read one after the other. What the first says of the
// whole process is compared with what the second says of the frontends.
func TestWhatThePageHides(t *testing.T) {
	type answers struct {
		whole, conns int64 // open connections of the process, and of the frontend on the page
		opened       int   // connections of that frontend since the process began
		streams      int   // requests in flight on them
	}
	// 1 connection of a hidden frontend is open. Each request comes on a new one.
	hides := func(n int) answers { return answers{whole: 2, conns: 1, opened: 2 * n, streams: 1} }
	// HAProxy has not yet closed that of the request before.
	lingers := func(n int) answers { return answers{whole: 2, conns: 2, opened: 2 * n, streams: 1} }
	for name, test := range map[string]struct {
		answer func(n int) answers
		want   int  // attempts
		hidden bool // whether it is an error
	}{
		"requests on one connection": {func(int) answers { return answers{1, 1, 1, 1} }, 2, false},
		"each request on its own":    {func(n int) answers { return answers{1, 1, 2 * n, 1} }, 2, false},
		"a hidden frontend":          {hides, attempts, true},
		"a hidden frontend, and a connection is opened between the parts": {func(n int) answers {
			if n == 1 {
				return lingers(n)
			}
			return hides(n)
		}, attempts, true},
		"a hidden frontend, and connections are opened all the time": {func(n int) answers {
			if n%2 == 1 {
				return lingers(n)
			}
			return hides(n)
		}, attempts, true},
		"a connection is closed between the parts": {func(n int) answers {
			if n == 1 {
				return answers{2, 1, 5, 1}
			}
			return answers{1, 1, 5, 1}
		}, 2, false},
		"work in flight": {func(n int) answers { return answers{3, 3, 9 * n, 2} }, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery != "" {
					n++
					fmt.Fprintf(w, "<b>pid = </b> 7 x current conns = %d;", test.answer(n).whole)
					return
				}
				a := test.answer(n)
				fmt.Fprintf(w, "# pxname,svname,mode,scur,stot,conn_tot,req_tot,intercepted,h1_open_connections,h1_open_streams,h2_open_connections,h2_backend_open_streams\n"+
					"web,FRONTEND,http,%d,%d,%d,%d,0,%d,%d,0,0\n", a.conns, a.opened, a.opened, n, a.conns, a.streams)
			}))
			defer s.Close()
			p, err := openPage(fetch.Settings{Variable: "X", Address: s.URL + "/;csv", Example: s.URL, Prefix: "X"})
			if err != nil {
				t.Fatal(err)
			}
			w, err := p.read(t.Context(), true)
			if test.hidden {
				if err == nil || !strings.Contains(err.Error(), "hides a frontend") {
					t.Errorf("got %+v, %v, want an error", w, err)
				}
			} else if err != nil || w.pid != 7 || len(w.frontends) != 1 {
				t.Errorf("got %+v, %v", w, err)
			}
			if n != test.want {
				t.Errorf("it was read %d times, want %d", n, test.want)
			}
			// Where no connection was opened since, the next reading asks once.
			if name == "requests on one connection" {
				if _, err := p.read(t.Context(), true); err != nil || n != 3 {
					t.Errorf("the next reading: %v, after %d in all", err, n)
				}
			}
		})
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
