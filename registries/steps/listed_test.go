package steps

import (
	"strings"
	"testing"
)

// Listed is checked before, while and after the instance is listed, for each
// combination of sections.
func TestListed(t *testing.T) {
	const (
		find      = "find:\n- get: URL/me\n  set: {id: id}\n  absent: [missing]\n"
		withdrawn = "withdrawn:\n- get: URL/state\n  when: status == OUT\n  done: [404]\n"
		listed    = "listed:\n- get: URL/state\n  when: status == UP\n  not_yet: [404]\n"
		withdraw  = "withdraw:\n- post: URL/out\n"
	)
	unknown := map[string]string{"get /me": `{}`}
	absent := map[string]string{"get /me": `{"id":"a"}`}
	with := func(status string) map[string]string {
		return map[string]string{"get /me": `{"id":"a"}`, "get /state": `{"status":"` + status + `"}`}
	}
	for name, test := range map[string]struct {
		yaml    string
		answers map[string]string
		want    bool
		says    string
	}{
		"not known":                      {find + withdrawn + listed, unknown, false, "not known there yet"},
		"known, and not there":           {find + withdrawn + listed, absent, false, "404"},
		"starting":                       {find + withdrawn + listed, with("STARTING"), false, "status == UP"},
		"up":                             {find + withdrawn + listed, with("UP"), true, ""},
		"withdrawn":                      {find + withdrawn + listed, with("OUT"), false, "status == UP"},
		"without the section, not known": {find + withdrawn, unknown, false, "not known there yet"},
		"without the section, not there": {find + withdrawn, absent, false, "is withdrawn"},
		"without the section, up":        {find + withdrawn, with("UP"), true, ""},
		"without the section, withdrawn": {find + withdrawn, with("OUT"), false, "is withdrawn"},
		"without conditions, not known":  {find + withdraw, unknown, false, "not known there yet"},
		"without conditions, known":      {find + withdraw, absent, true, ""},
		"without find, in service":       {withdrawn, with("UP"), true, ""},
		"without find, an error":         {listed + withdraw, map[string]string{"get /state": "no JSON"}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := startScript(t, test.answers).registry(t, test.yaml)
			got, why, err := r.Listed(within(t))
			if broken := name == "without find, an error"; (err != nil) != broken {
				t.Fatalf("Listed: %v", err)
			}
			if got != test.want || !strings.Contains(why, test.says) || (why == "") != (got || err != nil) {
				t.Errorf("listed %v: %q, want %v: %q", got, why, test.want, test.says)
			}
			if !r.Lists() {
				t.Error("it does not list")
			}
		})
	}
	if r := startScript(t, absent).registry(t, "listed: false\n"+find+withdrawn); r.Lists() {
		t.Error("a role lists")
	}
}
