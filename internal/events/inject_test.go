package events

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"lastcall/drain"
)

// Text that a registry or an app puts into an error cannot end a line, or control
// the terminal of someone who reads the event.
func TestTextsCannotInject(t *testing.T) {
	const evil = "a\r\nWarning: b\x1b[31m\u0085\x00\u2028{\"kind\":\"Pod\"}\xff"
	e := newEvent(pod{Name: evil}, drain.Event{Type: "DrainExpired", Text: evil, At: time.Now()}, time.Now())
	for _, text := range []string{e.Message, e.ReportingInstance} {
		if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r != ' ' && unicode.IsSpace(r) }) {
			t.Errorf("the event says %q", text)
		}
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back event
	if err := json.Unmarshal(text, &back); err != nil || back.Kind != "Event" || back.Message != e.Message {
		t.Errorf("%v, in %s", err, text)
	}
}
