package events

import (
	"fmt"
	"strings"
	"time"

	"lastcall/drain"
	"lastcall/internal/cliptext"
)

const (
	// component is the reporter's name in each event.
	component = "lastcall"
	// noteLimit is the API server's limit for an event's message, in bytes.
	// instanceLimit is its limit for the reporting instance's name.
	noteLimit     = 1024
	instanceLimit = 128
	// microTime is the format of eventTime.
	microTime = "2006-01-02T15:04:05.000000Z07:00"
)

// event is an Event of core/v1, the API that kubectl reads. The older time fields
// are set too, because kubectl sorts by them.
type event struct {
	APIVersion         string    `json:"apiVersion"`
	Kind               string    `json:"kind"`
	Metadata           metadata  `json:"metadata"`
	InvolvedObject     reference `json:"involvedObject"`
	Type               string    `json:"type"`
	Reason             string    `json:"reason"`
	Action             string    `json:"action"`
	Message            string    `json:"message"`
	Source             source    `json:"source"`
	ReportingComponent string    `json:"reportingComponent"`
	ReportingInstance  string    `json:"reportingInstance"`
	EventTime          string    `json:"eventTime"`
	FirstTimestamp     string    `json:"firstTimestamp"`
	LastTimestamp      string    `json:"lastTimestamp"`
	Count              int       `json:"count"`

	at time.Time
}

type metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type source struct {
	Component string `json:"component"`
}

// newEvent creates the Kubernetes Event for an Event of the drain. Its name is made
// from named, which must differ from that of every other event of the pod.
func newEvent(p pod, of drain.Event, named time.Time) *event {
	e := &event{
		APIVersion:         "v1",
		Kind:               "Event",
		Metadata:           metadata{Name: eventName(p.Name, named), Namespace: p.Namespace},
		InvolvedObject:     reference{"v1", "Pod", p.Namespace, p.Name, p.UID},
		Type:               "Normal",
		Reason:             string(of.Type),
		Action:             "Drain",
		Message:            cliptext.Clip(of.Text, noteLimit),
		Source:             source{component},
		ReportingComponent: component,
		ReportingInstance:  cliptext.Clip(p.Name, instanceLimit),
		EventTime:          of.At.UTC().Format(microTime),
		FirstTimestamp:     of.At.UTC().Format(time.RFC3339),
		LastTimestamp:      of.At.UTC().Format(time.RFC3339),
		Count:              1,
		at:                 of.At,
	}
	if of.Type.Warning() {
		e.Type = "Warning"
	}
	return e
}

// eventName is made of the pod's name and a time, as other components do, so that
// names sort by time. A call whose answer was lost can be repeated under the same
// name.
func eventName(podName string, at time.Time) string {
	suffix := fmt.Sprintf(".%x", at.UnixNano())
	const nameLimit = 253 // a DNS subdomain's limit
	if most := nameLimit - len(suffix); len(podName) > most {
		podName = strings.TrimRight(podName[:most], ".-")
	}
	return podName + suffix
}
