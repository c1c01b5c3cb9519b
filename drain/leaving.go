package drain

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// leaving is one drain, from its beginning until another takes its place or it
// is taken back. Its fields are guarded by the Drainer's lock.
type leaving struct {
	cause     Cause
	began     time.Time
	budgetEnd time.Time
	graceEnd  time.Time
	end       func() // stops the driver
	changed   chan struct{}
	over      chan struct{} // closed when the drain has ended

	phase    Phase
	since    time.Time
	waited   map[Phase]time.Duration
	timeline []TimelineEntry
	present  []waiting // what the drain waits for, or was waiting for at its end
	waits    waits     // how long it has waited, and for what

	samples []sample  // of the last round
	roundAt time.Time // when that began

	// What they were when the app was last seen to listen.
	samplesAlive []sample
	presentAlive []waiting

	byHand     bool            // somebody has asked for it by a call
	final      bool            // SIGTERM has begun or joined it: no other follows
	hooked     bool            // a preStop hook has asked for it
	hooks      int             // preStop callers that wait now
	hookAt     time.Time       // when the last hook was called
	startedAt  time.Time       // when a postStart hook was called while a preStop hook waited
	appGone    bool            // the app was seen not to listen, at the last look
	silentTold bool            // people were told of ports that nobody listens on
	unreadable map[string]bool // counters of which people were told that they cannot be read

	outcome      Outcome // empty while under way
	why          string  // why it ended so, where the outcome does not say
	worksUnheard bool    // work was seen on open connections of an app that does not listen
	unfinished   bool    // the app's end has come before the drain's
	report       Report
}

// enter moves the drain to a phase and books the time in the one before.
func (l *leaving) enter(p Phase, now time.Time) {
	l.waited[l.phase] += now.Sub(l.since)
	l.phase, l.since = p, now
}

// waitingFor tells people what the drain waits for, and how long it still can.
func (l *leaving) waitingFor(now time.Time) string {
	return fmt.Sprintf("%s; %s of budget left", sentence(l.present, now), short(max(0, l.budgetEnd.Sub(now))))
}

// timelineLimit bounds the timeline, so that a report stays under 10 KiB: the
// first events are kept, and the last one takes the place of the one before.
const timelineLimit = 32

// textLimit bounds every text in a report.
const textLimit = 160

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

// note puts an event on the timeline of the drain, if there is one, and in the
// log. Callers hold d.mu.
func (d *Drainer) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	slog.Info("drain: " + text)
	if d.leaving != nil {
		d.leaving.mark(text)
	}
}

// mark puts an event on the timeline.
func (l *leaving) mark(text string) {
	e := TimelineEntry{Seconds: seconds(time.Since(l.began)), Text: clip(text)}
	if len(l.timeline) >= timelineLimit {
		e.Text = clip("…, then " + text)
		l.timeline[timelineLimit-1] = e
		return
	}
	l.timeline = append(l.timeline, e)
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
