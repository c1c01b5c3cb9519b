package drain

import (
	"fmt"
	"strings"
	"time"
)

// Wait is something that a drain has waited for, and how long in all. Waits
// run side by side: their sum may be longer than the drain.
type Wait struct {
	For     string  `json:"for"`
	Seconds float64 `json:"seconds"`
}

// waiting is something that a drain waits for now.
type waiting struct {
	what  string    // the same for as long as the wait lasts
	text  string    // how it is described now; empty if another's text says it
	until time.Time // when it is over; zero when that is not known
}

// waits adds up what a drain has waited for. The zero value has waited for
// nothing yet.
type waits struct {
	all   []span
	since time.Time // when the present ones were last added to
}

type span struct {
	what    string
	waited  time.Duration
	present bool
}

// become sets what is waited for from now on.
func (w *waits) become(present []waiting, now time.Time) {
	w.pass(now)
	for i := range w.all {
		w.all[i].present = false
	}
	for _, p := range present {
		w.at(p.what).present = true
	}
}

// pass books the time until now.
func (w *waits) pass(now time.Time) {
	for i := range w.all {
		if w.all[i].present {
			w.all[i].waited += now.Sub(w.since)
		}
	}
	w.since = now
}

// at returns the span of what, a new one if there is none.
func (w *waits) at(what string) *span {
	for i := range w.all {
		if w.all[i].what == what {
			return &w.all[i]
		}
	}
	w.all = append(w.all, span{what: what})
	return &w.all[len(w.all)-1]
}

// list returns the waits until now, in the order in which they began, without
// those that took no time.
func (w *waits) list(now time.Time) []Wait {
	var list []Wait
	for _, s := range w.all {
		if s.present {
			s.waited += now.Sub(w.since)
		}
		if s.waited >= time.Millisecond {
			list = append(list, Wait{clip(s.what), seconds(s.waited)})
		}
	}
	return list
}

// sentence says what is waited for.
func sentence(present []waiting, now time.Time) string {
	var texts []string
	for _, p := range present {
		switch {
		case !p.until.IsZero():
			texts = append(texts, fmt.Sprintf("%s (%s)", p.text, short(max(0, p.until.Sub(now)))))
		case p.text != "":
			texts = append(texts, p.text)
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return "waiting for " + strings.Join(texts, ", ")
}
