package termination

import (
	"strings"
	"testing"
	"unicode"
)

// What a registry or an app says in an error ends no line and controls no
// terminal of those who read the message.
func TestTextsCannotInject(t *testing.T) {
	text := oneLine("a\r\nb\x1b[31m\u0085\x00\u2028c\xff")
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r != ' ' && unicode.IsSpace(r) }) {
		t.Errorf("says %q", text)
	}
}
