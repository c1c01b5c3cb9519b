package cliptext

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"0123456789":            "0123456789",
		"01234567890":           "0123456…",
		"a\nb\tc\u2028d":        "a b c d",
		"a\x1b[31m":             "a?[31m",
		"a\xffb":                "a?b",
		"a\u202eb":              "a?b",
		"äöüäö":                 "äöüäö",
		"äöüäöü":                "äöü…",
		"日本語で":                  "日本…",
		strings.Repeat("é", 99): "ééé…",
	} {
		if got := Clip(text, 10); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("a\nb\xff日本語", 10)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < len(more) || limit > 1<<16 {
			return
		}
		got := Clip(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b\x00") {
			t.Errorf("%q in %d bytes: %q", text, limit, got)
		}
	})
}
