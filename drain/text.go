package drain

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lastcall/internal/cliptext"
)

const (
	// textLimit bounds every text in a report, in bytes.
	textLimit = 160
	// portsNamed bounds how many ports a text names.
	portsNamed = 12
)

// clip makes text fit to print, and short enough.
func clip(text string) string { return cliptext.Clip(text, textLimit) }

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
