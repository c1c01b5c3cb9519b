package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// mark is how a phase is drawn: a character in a colour (SGR parameters).
type mark struct {
	sign   string
	colour string
}

func (p phase) mark() mark {
	switch p {
	case starting:
		return mark{"·", dim}
	case serving:
		return mark{"━", "32"}
	case withdrawing, propagating:
		return mark{"▒", "33"}
	case draining:
		return mark{"▓", "36"}
	case stopping:
		return mark{"░", "35"}
	default: // gone, or not started yet
		return mark{" ", "0"}
	}
}

const (
	bold = "1"
	dim  = "2"
	red  = "31;1"
)

// legend explains the marks.
func legend() string {
	item := func(p phase, text string) string { return paint(p.mark().colour, p.mark().sign) + " " + text }
	return " " + strings.Join([]string{
		item(serving, "serving"),
		item(propagating, "withdrawn"),
		item(draining, "draining"),
		item(stopping, "stopping"),
		paint(red, "2") + " failed",
	}, "  ")
}

// The widths of a row's parts.
const (
	nameWidth = 8
	noteWidth = 26
	minWidth  = nameWidth + noteWidth + 26
	maxBar    = 100
)

// scales are the durations that one character of a bar can stand for.
func scales() []time.Duration {
	return []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, time.Minute}
}

// draw returns the lines of a picture of the acts so far. No line is wider than
// width.
func draw(acts []snapshot, width int) []string {
	bar := min(width-nameWidth-noteWidth, maxBar)
	longest := time.Duration(0)
	for _, a := range acts {
		longest = max(longest, a.at)
	}
	var scale time.Duration
	for _, scale = range scales() {
		if scale*time.Duration(bar) > longest {
			break
		}
	}
	var lines []string
	for _, a := range acts {
		lines = append(lines, heading(a))
		cells := min(int(a.at/scale)+1, bar)
		for _, p := range a.pods {
			lines = append(lines, " "+pad(p.name, nameWidth-1)+strip(p, cells, scale)+strings.Repeat(" ", bar-cells)+note(p, a.running))
		}
		lines = append(lines, " "+pad("failed", nameWidth-1)+failed(a.failures, cells, scale), "")
	}
	return lines
}

func heading(a snapshot) string {
	counts := fmt.Sprintf("  %4.1f s   %d requests, ", a.at.Seconds(), a.requests)
	failures := fmt.Sprintf("%d failed", len(a.failures))
	if len(a.failures) > 0 {
		failures = paint(red, failures)
	}
	return paint(bold, strings.ToUpper(a.title)) + counts + failures
}

// strip draws a pod's phases. A phase shorter than a cell is visible if it is the
// last in its cell.
func strip(p podTrace, cells int, scale time.Duration) string {
	var b strings.Builder
	was := mark{}
	for cell := range cells {
		m := gone.mark()
		for _, c := range p.changes {
			if c.at < time.Duration(cell+1)*scale {
				m = c.to.mark()
			}
		}
		if m.colour != was.colour {
			b.WriteString("\x1b[0;" + m.colour + "m")
		}
		b.WriteString(m.sign)
		was = m
	}
	return b.String() + "\x1b[0m"
}

// note returns a short text about a pod's state.
func note(p podTrace, running bool) string {
	text := string(p.now())
	if p.note != "" {
		text += " " + p.note
	}
	if !running && p.now() != gone {
		text = ""
	}
	return cut("  "+text, noteWidth)
}

// failed draws the number of failed requests over time.
func failed(failures []failure, cells int, scale time.Duration) string {
	counts := make([]int, cells)
	for _, f := range failures {
		counts[min(int(f.at/scale), cells-1)]++
	}
	var b strings.Builder
	for _, n := range counts {
		switch {
		case n == 0:
			b.WriteString(paint(dim, "·"))
		case n < 10:
			b.WriteString(paint(red, fmt.Sprint(n)))
		default:
			b.WriteString(paint(red, "#"))
		}
	}
	return b.String()
}

func paint(colour, text string) string { return "\x1b[" + colour + "m" + text + "\x1b[0m" }

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func cut(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}
