// Package cliptext cuts texts that somebody else may have written, so that they
// fit into a line of a log, a report or an Event.
package cliptext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const more = "…"

// Clip returns text without what ends a line, controls a terminal or is not UTF-8,
// in at most limit bytes, which must be at least three. What is cut off is shown
// by an ellipsis.
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

// printable replaces what JSON needs six bytes for.
func printable(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case r == utf8.RuneError || unicode.IsControl(r):
		return '?'
	}
	return r
}
