package envoy

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// recorded returns a recorded answer of a real Envoy 1.40.0.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/stats.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	s, err := parse(recorded(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.managers["ingress_http"], (manager{known: true, active: 2, knownTotal: true, requests: 4, checks: 1, conns: 4, connsEver: 4}); got != want {
		t.Errorf("ingress_http: got %+v, want %+v", got, want)
	}
	if got := s.listeners["my.listener"]; got.conns != 1 || got.connsEver != 1 || got.managers != nil {
		t.Errorf("my.listener: got %+v, want one plain connection", got)
	}
	names := slices.Sorted(maps.Keys(s.managers))
	if want := []string{"eg-ready-http", "ingress_http", "mixed_http"}; !slices.Equal(names, want) {
		t.Errorf("managers %v, want %v", names, want)
	}
	if len(s.listeners) != 4 {
		t.Errorf("listeners %v, want 4", s.listeners)
	}
	inFlight, arrived := s.sum(s.choose(nil, nil))
	if inFlight != 4 || arrived != 6 { // two requests and two plain connections; four requests and two plain connections
		t.Errorf("in flight %d, arrived %d", inFlight, arrived)
	}
}

func TestParseRefuses(t *testing.T) {
	page := string(recorded(t))
	for name, bad := range map[string]string{
		"nothing":           "",
		"text":              "http.ingress_http.downstream_rq_active: 0\n",
		"cut short":         page[:len(page)-10],
		"another's":         `{"status":"ok"}`,
		"a list of another": `{"stats":[1,2]}`,
		"below zero":        `{"stats":[{"name":"http.a.downstream_rq_active","value":-1}]}`,
		"0 - 1":             `{"stats":[{"name":"http.a.downstream_rq_active","value":18446744073709551615}]}`,
		"no number":         `{"stats":[{"name":"http.a.downstream_rq_active","value":"1"}]}`,
	} {
		if got, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s was read as %+v", name, got)
		}
	}
}

func TestPerThread(t *testing.T) {
	for name, want := range map[string]bool{
		"0.0.0.0_80.worker_0": true, "my.listener.worker_12": true, "admin.main_thread": true,
		"0.0.0.0_80": false, "my.listener": false, "worker_1": false, "my.worker_x": false, "[__]_80": false,
	} {
		if got := perThread(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestChoice(t *testing.T) {
	one := func(manager string) listener { return listener{conns: 1, connsEver: 1, managers: []string{manager}} }
	busy := manager{known: true, active: 1, requests: 1, conns: 1, connsEver: 1}
	for name, test := range map[string]struct {
		listeners map[string]listener
		pattern   string
		want      int64
	}{
		"an app's":                    {map[string]listener{"0.0.0.0_80": one("ingress")}, "", 1},
		"Contour's":                   {map[string]listener{"0.0.0.0_8080": one("ingress_http"), "0.0.0.0_8002": one("stats"), "127.0.0.1_9001": one("envoy-admin")}, "", 1},
		"Istio's":                     {map[string]listener{"0.0.0.0_80": one("outbound_0.0.0.0_80;"), "0.0.0.0_15090": one("stats"), "0.0.0.0_15021": one("agent")}, "", 1},
		"Envoy Gateway's":             {map[string]listener{"0.0.0.0_10080": one("http-10080"), "0.0.0.0_19003": one("eg-ready-http"), "0.0.0.0_19001": one("eg-stats-http")}, "", 1},
		"an app with a common name":   {map[string]listener{"0.0.0.0_80": one("stats"), "0.0.0.0_81": one("agent")}, "", 2},
		"the same name in two places": {map[string]listener{"0.0.0.0_80": one("stats"), "0.0.0.0_15090": one("stats")}, "", 1},
		"by manager":                  {map[string]listener{"0.0.0.0_80": one("a"), "0.0.0.0_81": one("b")}, "^a$", 1},
		"by listener":                 {map[string]listener{"0.0.0.0_80": one("a"), "0.0.0.0_81": one("b")}, "_81$", 1},
		"plain, by listener":          {map[string]listener{"0.0.0.0_80": one("a"), "0.0.0.0_81": {conns: 7}}, "_81$", 7},
		"housekeeping, when asked":    {map[string]listener{"0.0.0.0_19003": one("eg-ready-http")}, "eg-ready", 1},
		"more HTTP than connections":  {map[string]listener{"0.0.0.0_80": {conns: 0, managers: []string{"a"}}}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := stats{listeners: test.listeners, managers: make(map[string]manager)}
			for _, l := range test.listeners {
				for _, m := range l.managers {
					of := busy
					of.conns += s.managers[m].conns // of several listeners
					s.managers[m] = of
				}
			}
			var pattern *regexp.Regexp
			if test.pattern != "" {
				pattern = regexp.MustCompile(test.pattern)
			}
			chosen := s.choose(pattern, nil)
			if got, _ := s.sum(chosen); got != test.want {
				t.Fatalf("in flight %d, want %d; counted: %+v", got, test.want, chosen)
			}
			if !chosen.any() {
				t.Fatal("nothing is counted")
			}
		})
	}
}

func TestNamesAreFew(t *testing.T) {
	s := stats{managers: make(map[string]manager)}
	for _, name := range strings.Split("a b c d e f g h i j k l", " ") {
		s.managers[name] = manager{}
	}
	if got := s.names(); got != "a, b, c, d, e, f, g, h, i, j, and 2 more" {
		t.Fatalf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(recorded(f))
	f.Add([]byte(`{"stats":[{"name":"http.a.downstream_rq_active","value":1},{"histograms":{}}]}`))
	f.Add([]byte(`{"stats":[{"name":"listener.a.http.a.downstream_rq_completed","value":1}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parse(body)
		if err != nil {
			return
		}
		for _, m := range s.managers {
			if m.active < 0 {
				t.Fatalf("%+v", s)
			}
		}
		s.sum(s.choose(nil, nil))
		s.choose(regexp.MustCompile("a"), nil)
		s.names()
	})
}
