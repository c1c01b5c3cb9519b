package drain

import (
	"fmt"
	"log/slog"
	"time"
)

// A journal is where the parts of a drain write down what happens: in the log,
// on the timeline of the drain there is, and for the observers. Its methods
// need the Drainer's lock.
type journal struct {
	observers []Observer
	timeline  *timeline // of the drain there is; nil while the pod serves
}

// noteLocked writes into the log and on the timeline.
func (j *journal) noteLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	slog.Info("drain: " + text)
	j.markLocked(text)
}

// markLocked writes on the timeline.
func (j *journal) markLocked(text string) {
	if j.timeline != nil {
		j.timeline.mark(text)
	}
}

// emitLocked hands an event to the observers.
func (j *journal) emitLocked(eventType EventType, format string, args ...any) {
	e := Event{Type: eventType, At: time.Now(), Text: fmt.Sprintf(format, args...)}
	for _, o := range j.observers {
		if err := guard("an observer of drains", func() error { o.Observe(e); return nil }); err != nil {
			slog.Error("drain: an event is lost", "event", string(eventType), "error", err)
		}
	}
}

// beganLocked is when the drain began; zero while the pod serves.
func (j *journal) beganLocked() time.Time {
	if j.timeline == nil {
		return time.Time{}
	}
	return j.timeline.began
}

// sinceBeganLocked is how long after the drain's beginning a time is; 0 while
// the pod serves.
func (j *journal) sinceBeganLocked(at time.Time) time.Duration {
	if j.timeline == nil {
		return 0
	}
	return at.Sub(j.timeline.began)
}

// timelineLimit bounds the timeline, so that a report stays under 10 KiB: the
// first entries are kept, and the last one takes the place of the one before.
const timelineLimit = 32

// TimelineEntry is one line of a drain's timeline.
type TimelineEntry struct {
	Seconds float64 `json:"seconds"` // since the drain began
	Text    string  `json:"event"`
}

// A timeline is what has happened in one drain.
type timeline struct {
	began   time.Time
	entries []TimelineEntry
}

// mark adds an entry.
func (t *timeline) mark(text string) {
	e := TimelineEntry{Seconds: seconds(time.Since(t.began)), Text: clip(text)}
	if len(t.entries) >= timelineLimit {
		e.Text = clip("…, then " + text)
		t.entries[timelineLimit-1] = e
		return
	}
	t.entries = append(t.entries, e)
}

// list returns the entries so far.
func (t *timeline) list() []TimelineEntry { return append([]TimelineEntry(nil), t.entries...) }
