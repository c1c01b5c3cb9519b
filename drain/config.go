package drain

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Config is what a Drainer needs to know. A duration of zero means that there
// is nothing to wait for; a negative threshold counts as zero. The values are
// not checked otherwise: the grace period must be longer than the reserve.
type Config struct {
	GracePeriod   time.Duration // the pod's terminationGracePeriodSeconds
	Reserve       time.Duration // the part of it left to the app after its SIGTERM
	EndpointsWait time.Duration // minimum time between readiness failing and the hook returning
	Quiet         time.Duration // how long the pod must be quiet before it counts as drained
	Poll          time.Duration // how often counters without events are read
	Threshold     int64         // work in flight that is accepted at the end
	StayReady     bool          // readiness stays true during a drain
	// ReadyWhenListed has readiness wait until each registry has been seen to list
	// the pod (Lister), for ListedWithin at most from the app's start, or the
	// Drainer's where that is not seen.
	ReadyWhenListed bool
	ListedWithin    time.Duration
	Registries      []NamedRegistry
	Counters        []NamedCounter
	App             App // nil when the app's port is not known
	// AppReady returns why the app is not ready, or nil. It is asked once a second
	// where the sidecar registers the app, and not during a drain; its context ends
	// after 1 s. Where it is nil, an app that listens on each of its ports is ready.
	AppReady  func(context.Context) error
	Notice    Notice // nil when the app is not notified
	Observers []Observer
	Kubelet   []netip.Addr // from where the kubelet calls, as far as that is configured
}

// NamedRegistry is a registry with its name in reports, metrics and the log.
type NamedRegistry struct {
	Name     string
	Registry Registry
	// ServerCache is how long the registry's own answers may lag. A drain looks
	// at the answers themselves; NeededBudget and the return into service
	// reckon with it.
	ServerCache time.Duration
	// ClientRefresh is how long a client may use an answer of the registry's.
	ClientRefresh time.Duration
	// Register has the sidecar register the app, and be the only one who does.
	// The Registry must be a Registrar.
	Register bool
}

// NamedCounter is a counter with its name in reports, metrics and the log.
type NamedCounter struct {
	Name    string
	Counter Counter
}

// Budget is the longest that a drain may take: the grace period less the
// reserve, or less the second that the process needs to end by itself.
func (c Config) Budget() time.Duration { return c.GracePeriod - max(c.Reserve, c.leaveEarly()) }

// NeededBudget is the budget that a drain needs when registries are as slow
// as they may be and nothing is in flight, with the sum written out.
func (c Config) NeededBudget() (needed time.Duration, sum string) {
	needed, sum = c.EndpointsWait, fmt.Sprintf("endpoints %v", c.EndpointsWait)
	for _, a := range c.Registries {
		if slowest := a.ServerCache + a.ClientRefresh; slowest > needed {
			needed = slowest
			sum = fmt.Sprintf("%s server cache %v + client refresh %v", a.Name, a.ServerCache, a.ClientRefresh)
		}
	}
	return needed + c.Quiet, fmt.Sprintf("%s + quiet %v", sum, c.Quiet)
}

// leaveEarly is how long before the end of the grace period the process
// leaves, so that it is never killed: 1 s, and less in short grace periods.
func (c Config) leaveEarly() time.Duration { return min(time.Second, c.GracePeriod/10) }
