package demo

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// scene returns two possible acts; the second is still running.
func scene() []snapshot {
	s := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
	return []snapshot{{
		title:    without,
		at:       s(9.2),
		requests: 80,
		pods: []podTrace{
			{"web-1", []change{{0, starting}, {s(0.1), serving}, {s(2), stopping}, {s(4), gone}}, "after 2.0 s"},
			{"web-2", []change{{0, starting}, {s(0.1), serving}, {s(4), stopping}, {s(6.5), gone}}, "after 2.5 s"},
			{"web-3", []change{{s(2), serving}}, ""},
		},
		failures: []failure{{s(2.6), "refused"}, {s(2.7), "refused"}, {s(4.9), "EOF"}},
	}, {
		title:    with,
		at:       s(7.1),
		running:  true,
		requests: 61,
		pods: []podTrace{
			{"web-1", []change{{0, serving}, {s(1), withdrawing}, {s(1.1), propagating}, {s(4), draining}, {s(5.5), stopping}, {s(6.5), gone}}, "after 5.5 s"},
			{"web-2", []change{{0, serving}, {s(6.5), withdrawing}, {s(6.6), propagating}}, "12 in flight and something long"},
			{"web-3", []change{{s(1), serving}}, ""},
		},
	}}
}

var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func plain(lines []string) string { return colours.ReplaceAllString(strings.Join(lines, "\n"), "") }

func TestDraw(t *testing.T) {
	const want = `
WITHOUT LASTCALL   9.2 s   80 requests, 3 failed
 web-1  ━━━━━━━━░░░░░░░░                                gone after 2.0 s
 web-2  ━━━━━━━━━━━━━━━━░░░░░░░░░░                      gone after 2.5 s
 web-3          ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
 failed ··········2········1·················

WITH LASTCALL   7.1 s   61 requests, 0 failed
 web-1  ━━━━▒▒▒▒▒▒▒▒▒▒▒▒▓▓▓▓▓▓░░░░                      gone after 5.5 s
 web-2  ━━━━━━━━━━━━━━━━━━━━━━━━━━▒▒▒                   propagating 12 in fligh…
 web-3      ━━━━━━━━━━━━━━━━━━━━━━━━━                   serving
 failed ·····························
`
	got := regexp.MustCompile(` +\n`).ReplaceAllString("\n"+plain(draw(scene(), 80)), "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDrawInColour(t *testing.T) {
	lines := draw(scene(), 80)
	if want := "\x1b[1mWITHOUT LASTCALL\x1b[0m   9.2 s   80 requests, \x1b[31;1m3 failed\x1b[0m"; lines[0] != want {
		t.Errorf("got %q, want %q", lines[0], want)
	}
	if want := " web-1  \x1b[0;32m━━━━━━━━\x1b[0;35m░░░░░░░░\x1b[0;0m                     \x1b[0m"; !strings.HasPrefix(lines[1], want) {
		t.Errorf("got %q, want it to begin with %q", lines[1], want)
	}
	for _, line := range append(lines, legend()) {
		// Every colour is reset on the same line.
		all := colours.FindAllString(line, -1)
		if len(all) > 0 && all[len(all)-1] != "\x1b[0m" {
			t.Errorf("%q does not end its colour", line)
		}
	}
}

// No line is wider than the terminal, whatever its width and however long the acts
// take.
func TestDrawFits(t *testing.T) {
	for width := minWidth; width < 250; width += 7 {
		for _, longer := range []time.Duration{0, time.Second, time.Minute, time.Hour, 24 * time.Hour} {
			acts := scene()
			acts[1].at += longer
			for _, line := range append(draw(acts, width), legend()) {
				if n := utf8.RuneCountInString(plain([]string{line})); n > width {
					t.Fatalf("%d characters in a line of a terminal of %d: %s", n, width, line)
				}
			}
		}
	}
}

func TestDrawManyFailures(t *testing.T) {
	a := scene()[0]
	for range 20 {
		a.failures = append(a.failures, failure{at: a.at + time.Second})
	}
	if got := plain(draw([]snapshot{a}, 80)); !strings.Contains(got, " ··········2········1················#") {
		t.Errorf("got\n%s", got)
	}
}

// Each picture overwrites the one before.
func TestScreenDrawsOver(t *testing.T) {
	var out bytes.Buffer
	width, height := 80, 24
	s := &screen{out: &out, size: func() (int, int) { return width, height }}
	tr := s.act(with)
	s.draw()
	if got := out.String(); strings.Contains(got, "A") && regexp.MustCompile(`\x1b\[\d+A`).MatchString(got) || strings.Count(got, "\n") != 4 {
		t.Fatalf("the first picture: %q", got)
	}
	out.Reset()
	tr.moves("web-1", serving, "")
	s.draw()
	if got := out.String(); !strings.HasPrefix(got, "\x1b[4A\r") || strings.Count(got, "\n") != 5 {
		t.Fatalf("the second picture: %q", got)
	}
	out.Reset()
	height = 3 // the window was made smaller
	s.draw()
	if got := out.String(); !strings.HasPrefix(got, "\x1b[5A\r") || strings.Count(got, "\n") != 2 {
		t.Fatalf("the third picture: %q", got)
	}
}

func TestScreenOnTerminal(t *testing.T) {
	for _, test := range []struct {
		width, height uint16
		env           map[string]string
		draws         bool
	}{
		{80, 24, map[string]string{"TERM": "xterm"}, true},
		{80, 24, nil, true},
		{minWidth, minHeight, nil, true},
		{minWidth - 1, 24, nil, false},
		{80, minHeight - 1, nil, false},
		{0, 0, nil, false}, // a terminal of unknown size
		{80, 24, map[string]string{"TERM": "dumb"}, false},
		{80, 24, map[string]string{"NO_COLOR": "1"}, false},
	} {
		terminal := openTerminal(t, test.width, test.height)
		s := newScreen(terminal, func(name string) string { return test.env[name] })
		if draws := s.size != nil; draws != test.draws {
			t.Errorf("%d x %d, %v: draws is %v, want %v", test.width, test.height, test.env, draws, test.draws)
		}
	}
	f, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s := newScreen(f, func(string) string { return "" }); s.size != nil {
		t.Error("a file is taken for a terminal")
	}
}

// openTerminal returns the terminal end of a pseudo-terminal.
func openTerminal(t *testing.T, width, height uint16) *os.File {
	t.Helper()
	outer, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outer.Close() })
	fd := int(outer.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}
	if err != nil {
		t.Fatal(err)
	}
	inner, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Close() })
	return inner
}
