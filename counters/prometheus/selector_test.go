package prometheus

import (
	"strings"
	"testing"
)

func TestSelector(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"up", "up"},
		{"job:up:sum{}", "job:up:sum"},
		{"\tup { } ", "up"},
		{`up{a="1",b!='2',c=~"3.*",d!~` + "`4|5`" + `,}`, `up{a="1",b!="2",c=~"3.*",d!~"4|5"}`},
		{`up{a="\"\\\n\t\x41é\u00e9'",b='\'"'}`, `up{a="\"\\\n\tAéé'",b="'\""}`},
		{"up{a=`\\d`}", `up{a="\\d"}`},
		{`up{a="1",a!="2"}`, `up{a="1",a!="2"}`},
	} {
		s, err := parseSelector(test.text)
		if err != nil || s.String() != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.text, s, err, test.want)
		}
	}
}

func TestNoSelector(t *testing.T) {
	for _, test := range []struct{ text, says string }{
		{"", "it is not set"},
		{" ", "at byte 2: a metric's name is missing"},
		{"9lives", "at byte 1: a metric's name is missing"},
		{`{__name__="up"}`, "a metric's name is missing"},
		{"up{", "at byte 4: a label's name is missing"},
		{"up{,}", "a label's name is missing"},
		{`up{a="1"`, "after a matcher comes , or }"},
		{`up{a="1" b="2"}`, "at byte 10: after a matcher comes , or }"},
		{"up{a}", "after a label's name comes =, !=, =~ or !~"},
		{"up{a==\"1\"}", "a value in quotes"},
		{"up{a=1}", "a value in quotes"},
		{`up{a="1}`, "the quotes are not closed"},
		{"up{a=`1}", "the quotes are not closed"},
		{"up{a=\"1\n\"}", "the quotes are not closed"},
		{`up{a="\d"}`, "an escape that is not known"},
		{`up{a="\xff"}`, "a byte that is not UTF-8"},
		{`up{a=~"("}`, `the regular expression "("`},
		{`up{__name__="up"}`, "stands before the braces"},
		{`up{a="1"}[5m]`, "at byte 10: nothing may follow"},
		{"rate(up[5m])", "at byte 5: nothing may follow"},
		{"up-time", "at byte 3: nothing may follow"},
		{"up\xff", "not UTF-8"},
		{strings.Repeat("a", maxSelector+1), "longer than 4096 bytes"},
	} {
		_, err := parseSelector(test.text)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%.80q: got %v, want an error that says %q", test.text, err, test.says)
		}
	}
}

func TestMatching(t *testing.T) {
	labels := map[string]string{"job": "web", "path": "/a\nb"}
	for text, want := range map[string]bool{
		`up`:                          true,
		`up{job="web"}`:               true,
		`up{job="we"}`:                false,
		`up{job!="web"}`:              false,
		`up{job=~"we"}`:               false, // anchored
		`up{job=~"we."}`:              true,
		`up{job=~"x|web"}`:            true,
		`up{job!~"x|web"}`:            false,
		`up{path=~".*"}`:              true, // a dot is any character
		`up{zone=""}`:                 true, // a label that does not exist
		`up{zone!=""}`:                false,
		`up{zone=~".+"}`:              false,
		`up{zone!~".+"}`:              true,
		`up{job="web",zone="x"}`:      false,
		`up{job!="x",job!="web"}`:     false,
		`up{job=~"",path=~".*"}`:      false,
		`up{job=~"(?i)WEB",zone=~""}`: true,
	} {
		s, err := parseSelector(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := s.matches(labels); got != want {
			t.Errorf("%s matches %v: got %v, want %v", text, labels, got, want)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{"up", `up{a="1",b!='2',c=~"3.*",d!~` + "`4`" + `,}`, `up{a="\xff\u00e9"}`, "up{", `up{a=~"("}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSelector(text)
		if err != nil {
			return
		}
		again, err := parseSelector(s.String())
		if err != nil {
			t.Fatalf("%q was read as %s, which cannot be read: %v", text, s, err)
		}
		if again.String() != s.String() {
			t.Fatalf("%q was read as %s, and that as %s", text, s, again)
		}
	})
}
