package consul

import (
	"context"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// takenError reports that the configured id belongs to an instance at another
// address than the pod's.
type takenError struct {
	by   []instance // the instances at other addresses
	text string
}

func (e *takenError) Error() string { return e.text }

// refuse returns an error if found, which has the configured id, is not the
// pod's. Somebody else's instance must not be withdrawn: it may be another
// pod's, if the id was configured by mistake, or a successor's that has taken
// over the id.
func (r *Registry) refuse(found []instance) error {
	if r.id == "" {
		return nil
	}
	for _, i := range found {
		if i.isProxy() || !r.isElsewhere(i.service, i.nodeAddress()) {
			continue
		}
		at := i.service.Address
		if at == "" {
			at = i.nodeAddress()
		}
		return &takenError{found, fmt.Sprintf("consul at %s: service instance %q (LASTCALL_CONSUL_SERVICE_ID) is at %s, and this pod at %s (LASTCALL_POD_IP): it belongs to somebody else, and is left alone; set LASTCALL_CONSUL_SERVICE_ID to this pod's id, or LASTCALL_POD_IP or LASTCALL_HOST_IP to the address that it is registered with",
			r.at, i.service.ID, at, r.addresses())}
	}
	return nil
}

func (i instance) nodeAddress() string {
	if i.node == nil {
		return ""
	}
	return i.node.Address
}

// isElsewhere reports whether a service is known to be at another address than
// the pod's and its node's. A host name that is not the pod's proves nothing:
// it may be that of a load balancer in front of the pod.
func (r *Registry) isElsewhere(service *api.AgentService, node string) bool {
	host := service.Address
	if host == "" {
		host = node
	}
	ip, ok := parseIP(host)
	if !ok || len(r.pod.Addresses()) == 0 || r.isAt(service, node) {
		return false
	}
	own, ok := parseIP(r.pod.HostIP)
	return !ok || own != ip
}

// handBack ends this pod's withdrawal at instances that others have taken over:
// an agent keeps the check when the id is registered again.
func (r *Registry) handBack(ctx context.Context, taken []instance) error {
	for _, i := range taken {
		if err := r.leaveMaintenance(ctx, i, func(reason string) bool { return reason == r.reason() }); err != nil {
			return err
		}
	}
	return nil
}

// datacenter returns a text with the datacenter that was searched, if it is
// known: a service in another one is not found. The servers are registered as a
// service themselves.
func (r *Registry) datacenter(ctx context.Context) string {
	entries, _, err := r.client.Health().Service("consul", "", true, query(ctx, ""))
	if err != nil {
		return "" // it is only for the message
	}
	for _, e := range entries {
		if whole(e) && e.Node.Datacenter != "" {
			return fmt.Sprintf(" of datacenter %q, the only one that was searched", e.Node.Datacenter)
		}
	}
	return ""
}
