package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
)

// ours is the prefix of the reason of every withdrawal by lastcall.
const ours = "lastcall: "

// Registry is the pod's instance in Consul. Its methods are safe for concurrent
// use; each ends with its context. It keeps what it has found from one call to
// the next.
type Registry struct {
	client    *api.Client
	id        string // of the service instance; empty: found by the pod's address
	pod       drain.Pod
	at        string // Consul's address, for messages
	anonymous bool   // there is no token
	watchFor  time.Duration
	limit     time.Duration // of one request
	changes   chan struct{}

	registrant *registrant // nil: the app registers itself

	mu        sync.Mutex // guards what follows
	names     []string   // names of the pod's services, once seen
	known     known
	located   bool // an instance of the pod has been seen
	withdrawn bool // from the first Withdraw to Restore
	entered   bool // a Withdraw has succeeded since
	watch     *watch
	watchedAt time.Time // when the last watch began
	awaited   *watch    // watch on what keeps the pod from being listed
	awaitedAt time.Time // when the last such watch began
	searchAt  time.Time // time of the next search for a pod that nobody holds
}

var (
	_ drain.Registry       = (*Registry)(nil)
	_ drain.Finder         = (*Registry)(nil)
	_ drain.CallLimiter    = (*Registry)(nil)
	_ drain.Locator        = (*Registry)(nil)
	_ drain.Lister         = (*Registry)(nil)
	_ drain.ChangeNotifier = (*Registry)(nil)
	_ drain.Registrar      = (*Registry)(nil)
)

// CallLimit returns how long the longest sequence of requests takes at a server
// that answers each within its limit.
func (r *Registry) CallLimit() time.Duration { return 9 * r.limit }

// Located reports whether an instance of the pod has been seen.
func (r *Registry) Located() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.located
}

// Withdraw puts the pod's instances into maintenance mode. If they were seen a
// moment ago, that is the first request. If it is called again after Withdrawn
// has seen that clients no longer discover them, it does nothing.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	again := r.withdrawn
	r.withdrawn = true
	r.mu.Unlock()
	if gone, ok := r.stands(); ok && gone && again && ctx.Err() == nil {
		return nil
	}
	defer r.unwatch()
	if found := r.recent(); !again && r.canEnterAtOnce(found) {
		if err := r.all(found, func(i instance) error { return r.enterAtOnce(ctx, i) }); err == nil {
			r.setEntered()
			return nil
		} else if ctx.Err() != nil {
			return r.explain("withdrawing the pod's service", "service:write", err)
		}
		// The instance has changed, or the token lacks a right: each, below,
		// finds out.
	}
	err := r.each(ctx, r.enterMaintenance)
	if err == nil {
		r.setEntered()
	}
	return err
}

func (r *Registry) setEntered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entered = true
}

// setTaken records that what was found is the pod's no more.
func (r *Registry) setTaken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = known{}
}

// Restore ends the maintenance mode that lastcall began.
func (r *Registry) Restore(ctx context.Context) error {
	r.mu.Lock()
	r.withdrawn, r.entered = false, false
	r.mu.Unlock()
	defer r.unwatch()
	return r.each(ctx, func(ctx context.Context, i instance) error {
		return r.leaveMaintenance(ctx, i, func(reason string) bool { return strings.HasPrefix(reason, ours) })
	})
}

// Deregister removes the pod's instances from the agent that holds them, or
// else from the catalog. Instances that were withdrawn and have not changed
// since they were read are not read again, nor are those that were seen a
// moment ago if little time is left.
func (r *Registry) Deregister(ctx context.Context) error {
	found := r.recent()
	r.mu.Lock()
	entered := r.entered
	r.mu.Unlock()
	gone, stands := r.stands()
	defer r.unwatch()
	if len(found) == 0 || !endsSoon(ctx) && (!entered || !gone || !stands) {
		return r.each(ctx, r.remove)
	}
	if err := r.all(found, func(i instance) error { return r.remove(ctx, i) }); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = known{}
	return nil
}

// endsSoon reports whether ctx ends before two requests to a slow server do. The
// sidecar of an app that was killed has less than two seconds: a request that
// removes an instance has its effect even if its answer comes too late.
func endsSoon(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < 2*time.Second
}

// each locates the pod's instances and calls do for each.
func (r *Registry) each(ctx context.Context, do func(context.Context, instance) error) error {
	found, err := r.locate(ctx)
	if taken := (*takenError)(nil); errors.As(err, &taken) && r.Located() {
		// The pod's own instance is gone, and a successor has its id.
		r.setTaken()
		return r.handBack(ctx, taken.by)
	}
	if err != nil {
		return err
	}
	return r.all(found, func(i instance) error { return do(ctx, i) })
}

// all calls do for each of found. Proxies come first, because an agent removes
// a sidecar that it has registered itself together with its service. The calls
// of one kind run concurrently.
func (r *Registry) all(found []instance, do func(instance) error) error {
	var failed []error
	for _, proxies := range []bool{true, false} {
		errs := make([]error, len(found))
		var running sync.WaitGroup
		for n, i := range found {
			if i.isProxy() == proxies {
				running.Go(func() { errs[n] = do(i) })
			}
		}
		running.Wait()
		failed = append(failed, errs...)
	}
	return errors.Join(failed...)
}

// Withdrawn reports whether clients of Consul discover none of the pod's
// instances any more, because they have a critical check or because they do not
// exist. The result stays valid until an open call shows a change.
func (r *Registry) Withdrawn(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("consul at %s was not asked: %w", r.at, err)
	}
	if gone, ok := r.standsStill(ctx); ok {
		return gone, nil
	}
	if last := r.last(); len(last) > 0 {
		gone, sure, w, err := r.look(ctx, last)
		if err != nil {
			return false, err
		}
		if sure {
			r.begin(ctx, w, gone)
			return gone, nil
		}
	}
	return r.lookFurther(ctx)
}

// lookFurther is the complete check: it finds out who holds the instances, and
// then whether clients still discover them.
func (r *Registry) lookFurther(ctx context.Context) (bool, error) {
	found, err := r.locate(ctx)
	if taken := (*takenError)(nil); errors.As(err, &taken) && r.Located() {
		r.setTaken()
		return true, r.handBack(ctx, taken.by)
	}
	if err != nil {
		return false, err
	}
	if len(found) == 0 {
		r.searchLater()
	}
	for _, i := range found {
		if i.onAgent {
			seen, unseen, err := r.agentsInCatalog(ctx, i)
			switch {
			case err != nil:
				return false, err
			case unseen:
				continue
			}
			i = seen
		}
		if !critical(i.checks) {
			return false, nil
		}
	}
	return true, nil
}

// Find returns which instances it has found and who holds them. It ends a
// withdrawal that another pod has left behind. An error names the setting that
// is needed.
func (r *Registry) Find(ctx context.Context) (string, error) {
	r.forget() // its service may have been renamed
	found, err := r.locate(ctx)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		advice := "set LASTCALL_CONSUL_SERVICE_ID"
		if r.id != "" {
			advice = "check LASTCALL_CONSUL_SERVICE_ID and CONSUL_HTTP_ADDR"
		}
		return "", &drain.NotFoundError{Why: fmt.Sprintf("consul at %s: no %s, neither at the agent nor in the catalog%s: if the app has registered, %s", r.at, r.wanted(), r.datacenter(ctx), advice)}
	}
	said := make([]string, len(found))
	for n, i := range found {
		if err := i.heldByAgent(r.at); err != nil {
			return "", err
		}
		leftover := func(reason string) bool { return strings.HasPrefix(reason, ours) && reason != r.reason() }
		if err := r.leaveMaintenance(ctx, i, leftover); err != nil {
			return "", err
		}
		said[n] = i.String()
	}
	where := "held by the agent at " + r.at
	if !found[0].onAgent {
		where = fmt.Sprintf("in the catalog at %s on node %q", r.at, found[0].node.Node)
	}
	return strings.Join(said, " and ") + ", " + where, nil
}

// String names an instance for messages.
func (i instance) String() string {
	kind := "service"
	if i.isProxy() {
		kind = "sidecar proxy"
	}
	return fmt.Sprintf("%s %q (instance %q)", kind, i.service.Service, i.service.ID)
}

// reason returns the reason of the pod's own withdrawal. Another pod's differs.
func (r *Registry) reason() string {
	who := "the pod"
	if r.pod.Name != "" {
		who = "pod " + r.pod.Name
	}
	return fmt.Sprintf("%s%s (%s) is leaving", ours, who, r.pod.IP)
}

// remembered returns the names of the services in which the pod was found.
func (r *Registry) remembered() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names
}

func (r *Registry) remember(found []instance) {
	var names []string
	for _, i := range found {
		if !i.isProxy() && !slices.Contains(names, i.service.Service) {
			names = append(names, i.service.Service)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = known{found: slices.Clone(found), at: time.Now()}
	if len(names) > 0 {
		r.names, r.located = names, true
	}
}

func (r *Registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = nil
}
