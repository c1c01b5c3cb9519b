package drain

import (
	"fmt"
	"strings"
	"time"
)

// EventType says what has happened. Its values are the reasons of the Kubernetes
// Events, on which users rely.
type EventType string

// The types of events.
const (
	EventDraining    EventType = "Draining"            // a drain has begun
	EventWithdrawn   EventType = "Withdrawn"           // a registry no longer lists the pod
	EventDrained     EventType = "Drained"             // the drain ended well
	EventExpired     EventType = "DrainExpired"        // the budget or the app ended first, or the drain was cut short
	EventTakenBack   EventType = "DrainTakenBack"      // the pod serves again
	EventUnreachable EventType = "RegistryUnreachable" // calls to a registry fail; at most once for each in a drain
	EventUnreadable  EventType = "CounterUnreadable"   // a counter cannot be read; at most once for each in a drain
	EventPortSilent  EventType = "AppPortSilent"       // nobody has ever listened on a port of the app; at most once before the first drain, and once in each
)

// Warning reports whether somebody should look into it.
func (t EventType) Warning() bool {
	return t == EventExpired || t == EventUnreachable || t == EventUnreadable || t == EventPortSilent
}

// Event is something in a drain that is reported to people.
type Event struct {
	Type EventType
	At   time.Time
	Text string // one sentence, for people
}

// Observer receives the events of drains, in the order in which they happen.
type Observer interface {
	// Observe receives an event. Calls are made one at a time. It returns at once
	// and must not call the Drainer: its caller holds the Drainer's lock.
	Observe(Event)
}

// emitEndLocked emits how a drain ended. Taking it back is another event, which
// may come later.
func (d *Drainer) emitEndLocked(run *drainRun, took time.Duration) {
	switch run.outcome {
	case OutcomeDrained:
		d.journal.emitLocked(EventDrained, "drained after %s: %s", short(took), run.phaseTimes())
	case OutcomeTakenBack: // emitted by takeBackLocked
	case OutcomeExpired, OutcomeCutShort:
		var text string
		switch {
		case run.outcome == OutcomeCutShort:
			text = fmt.Sprintf("cut short after %s (%s)", short(took), run.why)
		case run.why != "":
			text = fmt.Sprintf("expired after %s: %s", short(took), run.why)
		default:
			text = fmt.Sprintf("the budget of %v ended", d.cfg.Budget())
		}
		if waiting := sentence(run.present, run.since); waiting != "" {
			text += ", " + waiting
		}
		d.journal.emitLocked(EventExpired, "%s: %s", text, run.phaseTimes())
	}
}

// phaseTimes says how long each phase took.
func (r *drainRun) phaseTimes() string {
	var texts []string
	for _, p := range []Phase{Withdrawing, Propagating, Draining} {
		texts = append(texts, fmt.Sprintf("%s %s", p, short(r.waited[p])))
	}
	return strings.Join(texts, ", ")
}
