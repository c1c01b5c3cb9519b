package drain

import (
	"context"
	"net/netip"
	"time"
)

// Registry announces the pod's instance to clients. All methods are idempotent.
//
// Its methods are called one at a time, and so is a Finder's: a call begins when
// the one before has returned. A call that fails or is cancelled counts as one
// that may have taken effect. Contexts end after 5 s (see CallLimiter), at the
// end of the budget, or when the call is no longer wanted. A Withdraw is always
// wanted until the pod is deregistered: Restore waits for it.
type Registry interface {
	// Withdraw asks the registry to send this instance no new clients; the
	// instance stays known. It is called again and again until it succeeds, and
	// every few seconds for as long as the registry lists the instance.
	Withdraw(ctx context.Context) error
	// Withdrawn reports whether the registry's answers to clients no longer hold
	// the instance as available. It is called several times a second until it is
	// true, and then once a second: an app may register itself again.
	Withdrawn(ctx context.Context) (bool, error)
	// Restore undoes Withdraw, also one that failed half-way.
	Restore(ctx context.Context) error
	// Deregister removes the instance for good. It is called when the app is gone,
	// or the grace period is about to end.
	Deregister(ctx context.Context) error
}

// Finder is a Registry that can look its instance up.
type Finder interface {
	// Find returns in a few words, for the log, which instance it found. It also
	// removes a withdrawal that is older than the instance's present
	// registration: one that an earlier pod with the same id left behind when
	// its drain was cut short. A newer one is somebody's will, and stays.
	// An error says why nothing was found and what to set.
	//
	// It is called at start, when the app begins to listen, and when a drain was
	// taken back, until it succeeds; and some more times in the minutes after
	// that, in which the app may still be registering. Where the sidecar registers
	// the app (Registrar), it is called only after it has.
	Find(ctx context.Context) (string, error)
}

// CallLimiter is a Registry that sends several requests in one call, each of
// which it bounds itself. It keeps what it has learned and done, so that the next
// call continues one that was cancelled.
type CallLimiter interface {
	// CallLimit returns how long one call may take, in place of 5 s. A call also
	// ends with the budget. The registry ends a call to a server that does not
	// answer within about 5 s itself. CallLimit is called once, by New.
	CallLimit() time.Duration
}

// Locator is a Registry that knows whether it has ever found the pod's instance.
// An instance that was never found is not withdrawn, although nothing lists it.
// A call that has searched the registry for it says so: Find by a NotFoundError,
// Withdraw by nil, and Withdrawn by true.
type Locator interface {
	// Located reports whether the registry has been seen to hold the instance
	// since the process began. It is called after each call, and returns at once.
	Located() bool
}

// NotFoundError is the error of a Find that has searched the registry, and has not
// found the instance. A registry that could not be searched is another error.
type NotFoundError struct {
	Why string // what was looked for, what is there, and what to set
}

// Error returns Why.
func (e *NotFoundError) Error() string { return e.Why }

// ChangeNotifier is a Registry whose server reports changes.
type ChangeNotifier interface {
	// Changes returns a channel that receives when Withdrawn or Listed may give
	// another answer than it did last, until the process ends. Changes that come close
	// together may be reported once. It is called once, by New.
	Changes() <-chan struct{}
}

// GiveUpReporter is a Registry that can find out that a withdrawal will never
// succeed: a cluster whose only member leads it has nobody to hand that over to.
type GiveUpReporter interface {
	// GaveUp returns why the present withdrawal can never succeed; empty while it
	// can. Withdraw returns nil then, and Withdrawn true, so that the drain does
	// not wait for it. It is called after each call, and returns at once.
	GaveUp() string
}

// ListReporter is a Registry that says whether it lists every instance that is in
// service. Others do.
type ListReporter interface {
	// Lists reports whether Withdrawn is false of every instance in service. It is
	// not so for a role that an instance may lack, such as a cluster's
	// leadership: nobody waits for it after Restore, nor before the pod is ready.
	// It is called once, by New.
	Lists() bool
}

// Lister is a Registry that knows whether its answers to clients list the
// instance. That is more than that Withdrawn is false, for which it is enough
// that one of several servers holds the instance. A registry that is no Lister
// counts as listing what Withdrawn is false of.
type Lister interface {
	// Listed reports whether every client that asks the registry now is told of
	// the instance as available; if not, why says in a few words what is missing.
	// What follows the pod's own readiness is not missing: it would wait for
	// itself. It is called while the pod serves, with growing pauses, until it is
	// true, where Config.ReadyWhenListed is set.
	Listed(ctx context.Context) (listed bool, why string, err error)
}

// Counter counts the work in flight.
type Counter interface {
	// Count takes one reading. What cannot be read is an error, never zero;
	// what is gone for good, and its work with it, is zero.
	//
	// Different goroutines call it (the drain, and whoever asks for the status),
	// one at a time. The methods of the further interfaces of a Counter may run
	// at the same time. Its context ends after 2 s.
	Count(ctx context.Context) (Reading, error)
}

// Reading is one look at a counter. Arrived grows with every new piece of work
// where the counter can tell (HasArrived); a value below the last one means
// that what is counted was started again.
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
	// Learn runs from the Drainer's start until ctx ends. It is called once, and
	// runs at the same time as all other methods.
	Learn(ctx context.Context)
	// Learned returns what was learned so far. It may be called at any time, by
	// several goroutines. It returns at once and calls nobody: its caller holds
	// the Drainer's lock.
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
	// ReportsArrivals is called by whoever configures the Drainer, before New. It
	// returns at once.
	ReportsArrivals() bool
}

// AcceptStopper is a Counter whose proxy can stop accepting new work when a drain
// begins.
type AcceptStopper interface {
	// StopAccepting is called when a drain begins, again and again until it
	// succeeds or the budget ends. It is idempotent. Calls of it and of
	// StartAccepting are made one at a time, at the same time as Count; their
	// contexts end after 5 s. A drain does not wait for it.
	StopAccepting(ctx context.Context) error
}

// AcceptStarter is an AcceptStopper that can be undone.
type AcceptStarter interface {
	// StartAccepting undoes StopAccepting, also one that failed half-way. It is
	// called when a drain was taken back, and at the sidecar's start: an earlier
	// process may have been killed during a drain. It is idempotent, and called
	// until it succeeds.
	StartAccepting(ctx context.Context) error
}

// ProbeIgnorer is a Counter to which the kubelet's probes of the app look like
// work: they go on while a pod leaves, and one that comes every second would
// keep it from ever being quiet.
type ProbeIgnorer interface {
	// IgnoreProbes says which addresses the kubelet's calls come from, in place
	// of those said before. Others may share them: the node's own programs, and
	// clients for whom the node stands in.
	//
	// It is called by New, and whenever another address is known, one call at a
	// time, at the same time as Count. It returns at once and calls nobody: its
	// caller holds the Drainer's lock.
	IgnoreProbes(from []netip.Addr)
}

// Notifier is a Counter that knows when its reading may have changed.
type Notifier interface {
	// Changed returns a channel that receives whenever a new reading is worth
	// taking, until ctx ends. Changes that come close together may be reported
	// once. It returns nil if it cannot report changes; the counter is polled
	// then. It is called once in each drain, at its beginning, at the same time
	// as Count, and returns at once.
	Changed(ctx context.Context) <-chan struct{}
}

// Notice notifies the app that a drain is under way, so that it can ask its
// clients to leave. Both methods are idempotent and are called until they
// succeed, one call at a time; their contexts end after 5 s. A drain does not
// wait for them.
type Notice interface {
	// Post is called when a drain begins.
	Post(ctx context.Context) error
	// Remove undoes Post, also one that failed half-way. It is called when a drain
	// is taken back, and at the sidecar's start: one that was killed during a drain
	// has left its notice behind.
	Remove(ctx context.Context) error
}

// App is the app's containers, as the sidecar sees them. Listeners and
// OtherPorts may run at the same time, each one call at a time; their contexts
// end after 1 s.
type App interface {
	// Ports returns the app's ports, as they were configured. It is called by New.
	Ports() []int
	// Listeners returns who accepts connections on each of the app's ports, by
	// an identity that no other listener has or will have. A port that nobody
	// listens on is absent. An identity of 0 is one that is not known. It is
	// called once a second, and twenty times a second in a drain.
	Listeners(ctx context.Context) (map[int][]uint64, error)
	// OtherPorts returns the ports that the pod listens on besides the app's
	// and the sidecar's own.
	OtherPorts(ctx context.Context) ([]int, error)
}

// Pod is what plug-ins know of their pod.
type Pod struct {
	Name string // its name; empty if not configured
	IP   string // its first address
	// IPs are all of its addresses, IP first: a pod may have one of each family.
	// If they are not set, IP is the only one.
	IPs     []string
	HostIP  string // its node's address; empty if not configured
	AppPort int    // the app's port, by which registries know it; 0 if not configured
	// AppPorts are all ports at which the app takes its work, AppPort first.
	AppPorts []int
	// Service is what the sidecar registers; nil where the app registers itself.
	Service *Service
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
