package drain

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// textLimit bounds every text in a report, in bytes.
	textLimit = 160
	// portsNamed bounds how many ports a text names.
	portsNamed = 12
)

// clip makes text fit to print, and short enough.
func clip(text string) string {
	if most := 8 * textLimit; len(text) > most { // a letter has four bytes at most
		text = text[:most]
	}
	text = strings.Map(printable, text)
	if len(text) <= textLimit {
		return text
	}
	return strings.ToValidUTF8(text[:textLimit], "") + "…"
}

// printable leaves out what is not UTF-8 or controls a terminal, for which
// JSON needs six bytes.
func printable(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case r == utf8.RuneError || unicode.IsControl(r):
		return '?'
	}
	return r
}

// short is d as people read it: to the tenth of a second.
func short(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// seconds is d as reports give it: to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// portList is ports as people read them, not too many.
func portList(ports []int) string {
	var texts []string
	for i, port := range ports {
		if i == portsNamed {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, strconv.Itoa(port))
	}
	return strings.Join(texts, ", ")
}
