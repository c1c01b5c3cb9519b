package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
)

// ours begins the reason of every withdrawal by lastcall.
const ours = "lastcall: "

// Registry is the pod's instance in Consul. Its methods may be called at the
// same time; each ends with its context.
type Registry struct {
	client    *api.Client
	id        string // of the service instance; empty: found by the pod's address
	pod       drain.Pod
	at        string // Consul's address, for people
	anonymous bool   // there is no token

	mu    sync.Mutex
	names []string // of the pod's services, once seen
}

var (
	_ drain.Registry = (*Registry)(nil)
	_ drain.Finder   = (*Registry)(nil)
)

// Withdraw puts the pod's instances into maintenance mode.
func (r *Registry) Withdraw(ctx context.Context) error {
	return r.each(ctx, r.enterMaintenance)
}

// Restore ends the maintenance mode that lastcall has begun.
func (r *Registry) Restore(ctx context.Context) error {
	return r.each(ctx, func(ctx context.Context, i instance) error {
		return r.leaveMaintenance(ctx, i, func(reason string) bool { return strings.HasPrefix(reason, ours) })
	})
}

// Deregister removes the pod's instances from the agent that holds them, or
// else from the catalog.
func (r *Registry) Deregister(ctx context.Context) error {
	return r.each(ctx, r.remove)
}

// each does one thing with each of the pod's instances: with proxies first,
// because an agent takes a sidecar that it has registered itself away with its
// service.
func (r *Registry) each(ctx context.Context, do func(context.Context, instance) error) error {
	found, err := r.locate(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, i := range slices.Backward(found) {
		failed = append(failed, do(ctx, i))
	}
	return errors.Join(failed...)
}

// Withdrawn tells whether Consul tells clients of none of the pod's instances
// any more, be it because they have a critical check or because they are not
// there.
func (r *Registry) Withdrawn(ctx context.Context) (bool, error) {
	found, err := r.locate(ctx)
	if err != nil {
		return false, err
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

// Find says which instance it has found and who holds it, and ends a
// withdrawal that another pod has left behind. An error says what to set.
func (r *Registry) Find(ctx context.Context) (string, error) {
	r.forget() // its service may have another name by now
	found, err := r.locate(ctx)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		advice := "set LASTCALL_CONSUL_SERVICE_ID"
		if r.id != "" {
			advice = "check LASTCALL_CONSUL_SERVICE_ID and CONSUL_HTTP_ADDR"
		}
		return "", fmt.Errorf("consul at %s: no %s, neither at the agent nor in the catalog: if the app has registered, %s", r.at, r.wanted(), advice)
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

// String names an instance for people.
func (i instance) String() string {
	kind := "service"
	if i.isProxy() {
		kind = "sidecar proxy"
	}
	return fmt.Sprintf("%s %q (instance %q)", kind, i.service.Service, i.service.ID)
}

// reason is what the pod's own withdrawal says of itself. Another pod's differs.
func (r *Registry) reason() string {
	who := "the pod"
	if r.pod.Name != "" {
		who = "pod " + r.pod.Name
	}
	return fmt.Sprintf("%s%s (%s) is leaving", ours, who, r.pod.IP)
}

// remembered returns the names of the services that the pod was found in.
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
	if len(names) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = names
}

func (r *Registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = nil
}
