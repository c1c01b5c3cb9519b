package consul

import (
	"context"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// registerInCatalog registers the app on a node of its own, which has no agent.
// It writes only what is not there yet, because each write goes through the
// servers' log.
func (r *Registry) registerInCatalog(ctx context.Context, ready bool) error {
	g := r.registrant
	state, err := r.stateInCatalog(ctx)
	switch {
	case err != nil:
		return err
	case !ready && state == checkAbsent, ready && state == checkPassing, !ready && state == checkFailing:
		return nil
	}
	before := state
	if g.seen() == checkReplaced {
		before = checkReplaced // the last attempt has not succeeded
	}
	g.learn(checkReplaced)
	status, output := said(ready)
	_, err = r.client.Catalog().Register(&api.CatalogRegistration{
		Node: g.node, Address: g.address,
		NodeMeta: map[string]string{"external-node": "true", "external-probe": "false", "registered-by": "lastcall"},
		Service: &api.AgentService{
			ID: g.id, Service: g.service.Name, Address: g.ips[0].String(), Port: g.port,
			TaggedAddresses: g.tagged(), Meta: g.service.Metadata,
		},
		Check: &api.AgentCheck{
			Node: g.node, CheckID: g.checkID(), Name: checkName, Status: status, Output: output,
			ServiceID: g.id, ServiceName: g.service.Name,
		},
	}, write(ctx))
	if err != nil {
		return r.explain("registering "+g.id, fmt.Sprintf("service:write on %q and node:write on %q", g.service.Name, g.node), err)
	}
	return r.booked(ctx, ready, before)
}

// stateInCatalog returns the state of the instance's check in the catalog.
func (r *Registry) stateInCatalog(ctx context.Context) (checkState, error) {
	g := r.registrant
	entries, err := r.healthy(ctx, g.service.Name, r.client.Health().Service, is(ofHealth().id, g.id)+" and "+is("Node.Node", g.node))
	if err != nil {
		return checkNotSeen, err
	}
	for _, e := range entries {
		if e.Service.ID != g.id || e.Node.Node != g.node {
			continue
		}
		if !g.isAsWanted(e.Service) {
			return checkReplaced, nil
		}
		for _, c := range e.Checks {
			switch {
			case c.CheckID != g.checkID():
			case c.Status == api.HealthPassing:
				return checkPassing, nil
			default:
				return checkFailing, nil
			}
		}
		return checkReplaced, nil
	}
	return checkAbsent, nil
}

// isOwnNode reports whether an instance is on the node that the sidecar has
// created for it: both are deregistered together.
func (r *Registry) isOwnNode(i instance) bool {
	return r.registrant != nil && r.registrant.inCatalog && !i.onAgent && i.node.Node == r.registrant.node
}
