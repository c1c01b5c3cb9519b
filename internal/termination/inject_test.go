package termination

import (
	"strings"
	"testing"
	"unicode"
)

// Text that a registry or an app puts into an error cannot end a line, or control
// the terminal of someone who reads the message.
func TestTextsCannotInject(t *testing.T) {
	text := oneLine("a\r\nb\x1b[31m\u0085\x00\u2028c\xff")
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r != ' ' && unicode.IsSpace(r) }) {
		t.Errorf("says %q", text)
	}
}
