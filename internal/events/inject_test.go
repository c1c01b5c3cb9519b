package events

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"lastcall/drain"
)

// What a registry or an app says in an error ends no line and controls no
// terminal of those who read the event.
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
