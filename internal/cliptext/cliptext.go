// Package cliptext shortens untrusted text so that it fits into a line of a log, a
// report or an Event.
package cliptext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const more = "…"

// Clip shortens text to at most limit bytes (three or more). It replaces line ends,
// control and format characters, and invalid UTF-8. An ellipsis shows that text was
// cut off.
func Clip(text string, limit int) string {
	if most := 8 * limit; len(text) > most { // a letter has four bytes at most
		text = text[:most]
	}
	text = strings.Map(printable, text)
	if len(text) <= limit {
		return text
	}
	end := limit - len(more)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}

func printable(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
		return '?'
	}
	return r
}
