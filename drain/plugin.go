package drain

import (
	"context"
	"net/netip"
	"time"
)

// Registry announces the pod's instance to clients. All methods are idempotent.
type Registry interface {
	// Withdraw asks the registry to send this instance no new clients; the instance stays known.
	Withdraw(ctx context.Context) error
	// Withdrawn tells whether the registry's answers to clients no longer hold the instance as available.
	Withdrawn(ctx context.Context) (bool, error)
	// Restore undoes Withdraw.
	Restore(ctx context.Context) error
	// Deregister removes the instance for good. Only once its app is gone.
	Deregister(ctx context.Context) error
}

// Finder is a Registry that can look its instance up. The drainer calls Find
// at start, when the app begins to listen, and when a drain was taken back,
// until it succeeds, and some more times in the minutes after that, in which
// the app may still be registering.
type Finder interface {
	// Find tells in a few words, for the log, which instance it found. It also
	// removes a withdrawal that is older than the instance's present
	// registration: one that an earlier pod with the same id left behind when
	// its drain was cut short. A newer one is somebody's will, and stays.
	// An error says why nothing was found and what to set.
	Find(ctx context.Context) (string, error)
}

// CallLimiter is a Registry that sends several requests in one call, each of
// which it bounds itself. What it has learnt and done it keeps between calls, so
// that a call which was cut off is gone on with by the next one.
type CallLimiter interface {
	// CallLimit returns how long one call may take, in place of the drainer's
	// own limit. A server that does not answer ends a call earlier. It returns
	// the same value each time.
	CallLimit() time.Duration
}

// Locator is a Registry that knows whether it has ever found the pod's instance:
// one that was never found is not withdrawn, although nothing lists it.
type Locator interface {
	// Located reports whether the registry has been seen to hold the instance
	// since the process began. It may be called at any time, and returns at once.
	Located() bool
}

// ChangeNotifier is a Registry that is told by its server of changes.
type ChangeNotifier interface {
	// Changes returns a channel that receives when Withdrawn may give another
	// answer than it did last, until the process ends. It is the same channel
	// each time. Changes that come close together may be told once.
	Changes() <-chan struct{}
}

// Counter tells how much work is in flight.
type Counter interface {
	// Count takes one reading. What cannot be read is an error, never zero;
	// what is gone for good, and its work with it, is zero.
	Count(ctx context.Context) (Reading, error)
}

// Reading is one look at a counter. Arrived grows with every new piece of work
// where the counter can tell (HasArrived); a value below the last one means
// that what is counted was started anew.
//
// Open is how many connections clients hold to what is counted, idle ones
// included, where the counter knows (HasOpen). With none open, no client is
// about to send again on a connection that it keeps.
type Reading struct {
	InFlight   int64
	Arrived    uint64
	HasArrived bool
	Open       int64
	HasOpen    bool
}

// Learner is a Counter that learns about the app while the pod serves, so that
// it can count better in a drain.
type Learner interface {
	// Learn runs from the drainer's start until ctx ends. It is called once.
	Learn(ctx context.Context)
	// Learned returns what was learned so far. It may be called at any time,
	// by several goroutines, and returns at once.
	Learned() Learned
}

// Learned is what a Learner knows of the app.
type Learned struct {
	// Text says in one sentence how the counter counts, and why.
	Text string
	// Answers is the number of answers whose duration was seen.
	Answers uint64
	// Longest is the longest silence seen in the middle of work: the longest
	// wait for an answer, or the longest pause within one.
	Longest time.Duration
	// Silence is how long a connection in doubt must be silent to count as
	// idle. Zero means that too little was seen to say: it counts until it is
	// closed or the budget ends.
	Silence time.Duration
}

// ArrivalReporter is a Counter that says before its first reading whether its
// readings will have arrivals (HasArrived). Those of other counters do.
type ArrivalReporter interface {
	ReportsArrivals() bool
}

// AcceptStopper is a Counter whose proxy can be told, when a drain begins, to
// take no new work. It is idempotent.
type AcceptStopper interface {
	StopAccepting(ctx context.Context) error
}

// AcceptStarter is an AcceptStopper that can be undone, when a drain is taken
// back. It is idempotent.
type AcceptStarter interface {
	StartAccepting(ctx context.Context) error
}

// ProbeIgnorer is a Counter to which the kubelet's probes of the app look like
// work: they go on while a pod leaves, and one that comes every second would
// keep it from ever being quiet.
type ProbeIgnorer interface {
	// IgnoreProbes says which addresses the kubelet's calls come from, in place
	// of those said before. Others may share them: the node's own programs, and
	// clients for whom the node stands in. It returns at once; the caller may
	// hold locks.
	IgnoreProbes(from []netip.Addr)
}

// Notice tells the app that a drain is under way, so that it can ask its
// clients to leave. Both methods are idempotent.
type Notice interface {
	// Post is called when a drain begins, again and again until it succeeds.
	Post(ctx context.Context) error
	// Remove is called when a drain is taken back, and at the sidecar's start:
	// one that was killed during a drain has left its notice behind.
	Remove(ctx context.Context) error
}

// Notifier is a Counter that knows when its reading may have changed.
type Notifier interface {
	// Changed returns a channel that receives whenever a new reading is
	// worth taking, until ctx ends. Changes that come close together may be
	// told once. It returns nil when changes cannot be told, and the counter
	// is polled instead.
	Changed(ctx context.Context) <-chan struct{}
}

// Pod is what the plug-ins know of the pod that they serve.
type Pod struct {
	Name string // its name; empty when not told
	IP   string // its first address
	// IPs are all of its addresses, IP first: a pod may have one of each family.
	// Where they are not set, IP is the only one.
	IPs     []string
	HostIP  string // its node's address; empty when not told
	AppPort int    // the app's port, by which registries know it; 0 when not told
	// AppPorts are all ports at which the app takes its work, AppPort first.
	AppPorts []int
}

// Addresses returns the pod's addresses, parsed: IPs, or IP where these are not
// set. What is no address is left out.
func (p Pod) Addresses() []netip.Addr {
	texts := p.IPs
	if len(texts) == 0 {
		texts = []string{p.IP}
	}
	var all []netip.Addr
	for _, text := range texts {
		if ip, err := netip.ParseAddr(text); err == nil {
			all = append(all, ip.Unmap().WithZone(""))
		}
	}
	return all
}
