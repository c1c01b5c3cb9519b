package drain

import (
	"fmt"
	"strings"
	"time"
)

// EventType is what has happened, by the name under which people see it: the reason of a Kubernetes Event.
type EventType string

// The types.
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

// Warning reports whether people should look into it.
func (t EventType) Warning() bool {
	return t == EventExpired || t == EventUnreachable || t == EventUnreadable || t == EventPortSilent
}

// Event is something in the pod's leaving that people should be able to see.
type Event struct {
	Type EventType
	At   time.Time
	Text string // one sentence, for people
}

// Observer is told what happens, in the order in which it happens. Observe
// must return at once, and must not call the Drainer.
type Observer interface{ Observe(Event) }

// emitLocked hands an event to the observers.
func (d *Drainer) emitLocked(eventType EventType, format string, args ...any) {
	e := Event{Type: eventType, At: time.Now(), Text: fmt.Sprintf(format, args...)}
	for _, o := range d.cfg.Observers {
		o.Observe(e)
	}
}

// tellWithdrawn tells the observers that a registry no longer lists the pod.
// Callers hold d.mu.
func (d *Drainer) tellWithdrawn(k *keeper) {
	if d.leaving == nil {
		return
	}
	d.emitLocked(EventWithdrawn, "%s no longer lists the pod, %s after the drain began; its clients forget it within %v",
		k.Name, short(k.goneAt.Sub(d.leaving.began)), k.ClientRefresh)
}

// tellEnd tells the observers how a drain ended; whether it is taken back is
// another matter, and may come later. Callers hold d.mu.
func (d *Drainer) tellEnd(l *leaving, took time.Duration) {
	switch l.outcome {
	case OutcomeDrained:
		d.emitLocked(EventDrained, "drained after %s: %s", short(took), l.phaseTimes())
	case OutcomeTakenBack: // told by takeBack
	case OutcomeExpired, OutcomeCutShort:
		var text string
		switch {
		case l.outcome == OutcomeCutShort:
			text = fmt.Sprintf("cut short after %s (%s)", short(took), l.why)
		case l.why != "":
			text = fmt.Sprintf("expired after %s: %s", short(took), l.why)
		default:
			text = fmt.Sprintf("the budget of %v ended", d.cfg.Budget())
		}
		if waiting := sentence(l.present, l.since); waiting != "" {
			text += ", " + waiting
		}
		d.emitLocked(EventExpired, "%s: %s", text, l.phaseTimes())
	}
}

// phaseTimes tells how long each phase took.
func (l *leaving) phaseTimes() string {
	var texts []string
	for _, p := range []Phase{Withdrawing, Propagating, Draining} {
		texts = append(texts, fmt.Sprintf("%s %s", p, short(l.waited[p])))
	}
	return strings.Join(texts, ", ")
}

// short is d as people read it: to the tenth of a second.
func short(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
