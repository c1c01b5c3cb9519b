package steps

import (
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	const json = `{"n":0,"big":18446744073709551615,"s":"text","f":1.5,"b":true,"z":null,"list":[{"a":"x y","id":1},{"a":"z","id":2}],"empty":"","num":"7"}`
	vars := values{fixed: map[string]string{"V": "z", "DOT": "a.b", "BAD": `x"y`, "BIG": "18446744073709551614"}}
	for _, test := range []struct {
		when, body string
		want       bool
		wrong      string
	}{
		{"n == 0", json, true, ""},
		{"n == 0.0", json, true, ""},
		{"n != 0", json, false, ""},
		{"n < 1", json, true, ""},
		{"n >= 0", json, true, ""},
		{"f > 1", json, true, ""},
		{"f <= 1.4", json, false, ""},
		{"big == 18446744073709551615", json, true, ""},
		{"big == ${BIG}", json, false, ""}, // equal only as floating-point numbers
		{"big > ${BIG}", json, true, ""},
		{"num < 8", json, true, ""},
		{"s == text", json, true, ""},
		{`s == "text"`, json, true, ""},
		{`empty == ""`, json, true, ""},
		{"b == true", json, true, ""},
		{"s < 3", json, false, "must be numbers"},
		{"s exists", json, true, ""},
		{"z exists", json, true, ""},
		{"no exists", json, false, ""},
		{"no missing", json, true, ""},
		{"no == 0", json, false, "has no no"}, // a missing value is not zero
		{"no != 0", json, false, "has no no"},
		{`list.#(a=="${V}").id == 2`, json, true, ""},
		{`list.#(a=="x y").id == 1`, json, true, ""},
		{`list.#(a=="${BAD}").id == 1`, json, false, "quotation mark"},
		{"list.# == 2", json, true, ""},
		{`list.#(id > 1).a == z`, json, true, ""},
		{"${DOT} == 1", `{"a.b":1}`, true, ""},
		{"n == 0", "n is 0", false, "not JSON"},
		{"n == 0", "", false, "not JSON"},
		{"n == 0", `{"n":0`, false, "not JSON"},
	} {
		c, err := parseComparison(test.when)
		if err != nil {
			t.Errorf("%s: %v", test.when, err)
			continue
		}
		got, err := c.holds([]byte(test.body), vars)
		if got != test.want || (err != nil) != (test.wrong != "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s of %s: got %v, %v; want %v, %q", test.when, test.body, got, err, test.want, test.wrong)
		}
	}
}

func TestNumbers(t *testing.T) {
	const text = "# HELP leaders\nleaders{type=\"leader\"} 0\nleaders{type=\"other\"} 4\nup 1\nbad NaN\n"
	for _, test := range []struct {
		number string
		want   bool
		wrong  string
	}{
		{`^leaders\{type="leader"\} (\S+)$ == 0`, true, ""},
		{`^leaders\{.*\} (\S+)$ == 0`, false, ""}, // all numbers must satisfy it
		{`^leaders\{.*\} (\S+)$ <= ${V}`, true, ""},
		{`^gone (\S+)$ == 0`, false, "nothing that matches"},
		{`^bad (\S+)$ < 1`, false, "must be numbers"},
	} {
		n, err := parseNumber(test.number)
		if err != nil {
			t.Errorf("%s: %v", test.number, err)
			continue
		}
		got, err := n.holds([]byte(text), values{fixed: map[string]string{"V": "4"}})
		if got != test.want || (err != nil) != (test.wrong != "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s: got %v, %v; want %v, %q", test.number, got, err, test.want, test.wrong)
		}
	}
}

func TestExpand(t *testing.T) {
	vars := values{fixed: map[string]string{"BASE": "http://u:p@h:1/x", "HOST": "pd-0", "ID": `a/b?c"d`, "NL": "a\nb", "NEST": "${ID}"}}
	for _, test := range []struct {
		raw  string
		fit  escape
		want string
	}{
		{"${BASE}/y", inURL, "http://u:p@h:1/x/y"},
		{"http://${HOST}:80/${ID}", inURL, "http://pd-0:80/a%2Fb%3Fc%22d"},
		{"/s/${ID}?q=${ID}&r=1", inURL, "/s/a%2Fb%3Fc%22d?q=a%2Fb%3Fc%22d&r=1"},
		{`{"id":"${ID}"}`, inBody, `{"id":"a/b?c\"d"}`},
		{"id=${ID}", inBody, `id=a/b?c"d`},
		{"${NEST}", nil, "${ID}"}, // a value is not parsed again
		{"${NONE:-x}$y", nil, "x$y"},
	} {
		parsed, err := parseText(test.raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.expand(vars, test.fit); err != nil || got != test.want {
			t.Errorf("%s: got %q, %v; want %q", test.raw, got, err, test.want)
		}
	}
	for raw, fit := range map[string]escape{"x${NL}": inHeader, "http://${NL}": inURL, "${NONE}": nil} {
		parsed, err := parseText(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.expand(vars, fit); err == nil {
			t.Errorf("%s: got %q, want an error", raw, got)
		}
	}
}
