package events

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lastcall/drain"
)

// subdomain is the form of an object's name (RFC 1123), which has at most 253
// characters.
var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func TestLimitsOfAnEvent(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	for name, test := range map[string]struct{ pod, text string }{
		"usual":           {"web-7d9f-x2x", "drained after 3.1 s"},
		"long":            {strings.Repeat("w", 253), strings.Repeat("x", 5000)},
		"cut at a dot":    {strings.Repeat("w", 230) + "...---" + strings.Repeat("w", 17), strings.Repeat("ä", 2000)},
		"cut in a letter": {"web", "x" + strings.Repeat("漢", 1000)},
		"not UTF-8":       {"web", "x\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEvent(pod{"shop", test.pod, "7d3f"}, drain.Event{Type: drain.EventUnreachable, At: at, Text: test.text}, at)
			if n := e.Metadata.Name; len(n) > 253 || !subdomain.MatchString(n) {
				t.Errorf("the name %q (%d) is none", n, len(n))
			}
			if !utf8.ValidString(e.Message) || len(e.Message) > noteLimit || len(e.ReportingInstance) > instanceLimit {
				t.Errorf("message of %d bytes, instance of %d", len(e.Message), len(e.ReportingInstance))
			}
			if len(test.text) <= noteLimit && !strings.HasPrefix(test.text, strings.TrimSuffix(e.Message, "?")) {
				t.Errorf("%q has become %q", test.text, e.Message)
			}
			if e.EventTime != "2026-11-21T09:00:00.123456Z" || e.LastTimestamp != "2026-11-21T09:00:00Z" || e.Type != "Warning" {
				t.Errorf("%+v", e)
			}
		})
	}
}
