package drain

import (
	"fmt"
	"strings"
	"time"
)

// Kind is what sort of thing has happened.
type Kind string

// The kinds, by the names under which people see them.
const (
	KindDraining    Kind = "Draining"            // a drain has begun
	KindWithdrawn   Kind = "Withdrawn"           // a registry no longer lists the pod
	KindDrained     Kind = "Drained"             // the drain ended well
	KindExpired     Kind = "DrainExpired"        // the budget or the app ended first, or the drain was cut short
	KindTakenBack   Kind = "DrainTakenBack"      // the pod serves again
	KindUnreachable Kind = "RegistryUnreachable" // calls to a registry fail; at most once for each in a drain
	KindUnreadable  Kind = "CounterUnreadable"   // a counter cannot be read; at most once for each in a drain
	KindPortSilent  Kind = "AppPortSilent"       // nobody has ever listened on a port of the app; at most once before the first drain, and once in each
)

// Warning reports whether people should look into it.
func (k Kind) Warning() bool {
	return k == KindExpired || k == KindUnreachable || k == KindUnreadable || k == KindPortSilent
}

// Happening is something in the pod's leaving that people should be able to see.
type Happening struct {
	Kind Kind
	At   time.Time
	Text string // one sentence, for people
}

// Observer is told what happens, in the order in which it happens. Observe
// must return at once, and must not call the Drainer.
type Observer interface{ Observe(Happening) }

// tell tells the observers. Callers hold d.mu.
func (d *Drainer) tell(kind Kind, format string, args ...any) {
	h := Happening{Kind: kind, At: time.Now(), Text: fmt.Sprintf(format, args...)}
	for _, o := range d.cfg.Observers {
		o.Observe(h)
	}
}

// tellWithdrawn tells the observers that a registry no longer lists the pod.
// Callers hold d.mu.
func (d *Drainer) tellWithdrawn(k *keeper) {
	if d.leaving == nil {
		return
	}
	d.tell(KindWithdrawn, "%s no longer lists the pod, %s after the drain began; its clients forget it within %v",
		k.Name, short(k.goneAt.Sub(d.leaving.began)), k.ClientRefresh)
}

// tellEnd tells the observers how a drain ended; whether it is taken back is
// another matter, and may come later. Callers hold d.mu.
func (d *Drainer) tellEnd(l *leaving, took time.Duration) {
	switch l.outcome {
	case OutcomeDrained:
		d.tell(KindDrained, "drained after %s: %s", short(took), l.phaseTimes())
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
		d.tell(KindExpired, "%s: %s", text, l.phaseTimes())
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
