package drain

import "time"

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
	EventNotFound    EventType = "InstanceNotFound"    // a registry does not hold the pod's instance; at most once while serving, once in a drain and once at its end
	EventGivenUp     EventType = "WithdrawalGivenUp"   // the pod cannot be withdrawn from a registry; at most once for each in a drain
	EventUnreachable EventType = "RegistryUnreachable" // calls to a registry fail; at most once for each in a drain
	EventUnreadable  EventType = "CounterUnreadable"   // a counter cannot be read; at most once for each in a drain
	EventNotListed   EventType = "NotListed"           // a registry was not seen to list the pod in time, and the pod is ready all the same; at most once for each
	EventPortSilent  EventType = "AppPortSilent"       // nobody has ever listened on a port of the app; at most once before the first drain, and once in each
)

// Warning reports whether somebody should look into it.
func (t EventType) Warning() bool {
	switch t {
	case EventExpired, EventNotFound, EventNotListed, EventGivenUp, EventUnreachable, EventUnreadable, EventPortSilent:
		return true
	case EventDraining, EventWithdrawn, EventDrained, EventTakenBack:
	}
	return false
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
