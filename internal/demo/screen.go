package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// screen shows the acts: as lines of text for each event, or as a picture that is
// redrawn in place.
type screen struct {
	out  io.Writer
	size func() (width, height int) // nil: lines of text

	mu    sync.Mutex
	acts  []*trace
	drawn int // number of lines of the picture on the terminal
}

// newScreen returns a screen that draws if out is a suitable terminal, and
// otherwise writes lines.
func newScreen(out *os.File, env func(string) string) *screen {
	s := &screen{out: out}
	size := func() (int, int) {
		w, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0, 0
		}
		return int(w.Col), int(w.Row)
	}
	if width, height := size(); width >= minWidth && height >= minHeight && env("NO_COLOR") == "" && env("TERM") != "dumb" {
		s.size = size
	}
	return s
}

// minHeight is enough for a picture of two acts with three pods and their
// successors.
const minHeight = 20

// act begins an act.
func (s *screen) act(title string) *trace {
	var tell func(time.Duration, string)
	if s.size == nil {
		s.print("\n" + strings.ToUpper(title))
		tell = func(at time.Duration, text string) { s.print(fmt.Sprintf("%6.2f s  %s", at.Seconds(), text)) }
	}
	t := newTrace(title, tell)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts = append(s.acts, t)
	return t
}

// print writes text below the picture.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, text)
}

// frame is the interval between two pictures.
const frame = 100 * time.Millisecond

// run draws until ctx ends, and then once more.
func (s *screen) run(ctx context.Context) {
	if s.size == nil {
		return
	}
	fmt.Fprint(s.out, "\n"+hideCursor)
	defer fmt.Fprint(s.out, showCursor)
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		s.draw()
		select {
		case <-ctx.Done():
			s.draw()
			return
		case <-tick.C:
		}
	}
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	lineUp     = "\x1b[%dA"
	clearRight = "\x1b[K"
	clearDown  = "\x1b[J"
)

func (s *screen) draw() {
	s.mu.Lock()
	traces := slices.Clone(s.acts)
	s.mu.Unlock()
	var acts []snapshot
	for _, t := range traces {
		acts = append(acts, t.snapshot())
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	width, height := s.size()
	lines := append(draw(acts, max(width, minWidth)), legend())
	// Lines that have scrolled off the screen cannot be overwritten.
	lines = lines[max(0, len(lines)-max(height-1, 1)):]
	var picture strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&picture, lineUp, s.drawn)
	}
	picture.WriteString("\r")
	for _, line := range lines {
		picture.WriteString(line + clearRight + "\n")
	}
	picture.WriteString(clearDown)
	fmt.Fprint(s.out, picture.String())
	s.drawn = len(lines)
}
