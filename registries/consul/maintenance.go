package consul

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// enterMaintenance puts an instance into maintenance mode. It has no effect if
// the instance is already in maintenance mode, whoever began it.
func (r *Registry) enterMaintenance(ctx context.Context, i instance) error {
	doing := "withdrawing " + i.String()
	if i.onAgent {
		err := r.client.Agent().EnableServiceMaintenanceOpts(i.service.ID, r.reason(), query(ctx, ""))
		return r.unlessGone(doing, i, err)
	}
	if err := i.heldByAgent(r.at); err != nil {
		return err
	}
	if maintenance(i) != nil {
		return nil
	}
	// This is the check that an agent would create. The node is not changed.
	_, err := r.client.Catalog().Register(&api.CatalogRegistration{
		Node:           i.node.Node,
		Partition:      i.node.Partition,
		SkipNodeUpdate: true,
		Check: &api.AgentCheck{
			Node:        i.node.Node,
			CheckID:     api.ServiceMaintPrefix + i.service.ID,
			Name:        maintenanceName,
			Status:      api.HealthCritical,
			Notes:       r.reason(),
			ServiceID:   i.service.ID,
			ServiceName: i.service.Service,
			Type:        "maintenance",
			Namespace:   i.service.Namespace,
			Partition:   i.service.Partition,
		},
	}, write(ctx))
	return r.unlessGone(doing, i, err)
}

// canEnterAtOnce reports whether found can be withdrawn without reading it
// again.
func (r *Registry) canEnterAtOnce(found []instance) bool {
	for _, i := range found {
		if !i.onAgent && (maintenance(i) != nil || i.heldByAgent(r.at) != nil) {
			return false
		}
	}
	return len(found) > 0
}

// enterAtOnce is enterMaintenance for an instance that was seen a moment ago.
// It fails if the instance no longer exists, or if somebody has begun
// maintenance since: in the catalog the check is created only if there is none
// (cas, index 0).
func (r *Registry) enterAtOnce(ctx context.Context, i instance) error {
	if i.onAgent {
		return r.client.Agent().EnableServiceMaintenanceOpts(i.service.ID, r.reason(), query(ctx, ""))
	}
	ok, _, _, err := r.client.Txn().Txn(api.TxnOps{{Check: &api.CheckTxnOp{Verb: api.CheckCAS, Check: api.HealthCheck{
		Node:        i.node.Node,
		CheckID:     api.ServiceMaintPrefix + i.service.ID,
		Name:        maintenanceName,
		Status:      api.HealthCritical,
		Notes:       r.reason(),
		ServiceID:   i.service.ID,
		ServiceName: i.service.Service,
		Type:        "maintenance",
		Namespace:   i.service.Namespace,
		Partition:   i.service.Partition,
	}}}}, query(ctx, ""))
	if err == nil && !ok {
		err = errChanged
	}
	return err
}

var errChanged = errors.New("the instance has changed since it was found")

// maintenanceName is the name that an agent gives the check of maintenance
// mode.
const maintenanceName = "Service Maintenance Mode"

// leaveMaintenance ends the maintenance of an instance if mine returns true for
// its reason.
func (r *Registry) leaveMaintenance(ctx context.Context, i instance, mine func(reason string) bool) error {
	doing := "restoring " + i.String()
	if i.onAgent {
		checks, err := r.agentChecks(ctx, i)
		if err != nil {
			return err
		}
		if check := checks[api.ServiceMaintPrefix+i.service.ID]; check == nil || !mine(check.Notes) {
			return nil
		}
		err = r.client.Agent().DisableServiceMaintenanceOpts(i.service.ID, query(ctx, ""))
		return r.unlessGone(doing, i, err)
	}
	check := maintenance(i)
	if check == nil || !mine(check.Notes) {
		return nil
	}
	if err := i.heldByAgent(r.at); err != nil {
		return err
	}
	_, err := r.client.Catalog().Deregister(&api.CatalogDeregistration{
		Node:      i.node.Node,
		CheckID:   check.CheckID,
		Namespace: i.service.Namespace,
		Partition: i.node.Partition,
	}, write(ctx))
	return r.unlessGone(doing, i, err)
}

// remove deregisters an instance.
func (r *Registry) remove(ctx context.Context, i instance) error {
	doing := "deregistering " + i.String()
	if i.onAgent {
		err := r.client.Agent().ServiceDeregisterOpts(i.service.ID, query(ctx, ""))
		return r.unlessGone(doing, i, err)
	}
	if err := i.heldByAgent(r.at); err != nil {
		return err
	}
	id := i.service.ID
	if r.isOwnNode(i) {
		id = "" // the node, with all that is on it
	}
	_, err := r.client.Catalog().Deregister(&api.CatalogDeregistration{
		Node:      i.node.Node,
		ServiceID: id,
		Namespace: i.service.Namespace,
		Partition: i.node.Partition,
	}, write(ctx))
	return r.unlessGone(doing, i, err)
}

// unlessGone explains a failure. It returns nil if the agent no longer has the
// instance: then there is nothing left to do with it.
func (r *Registry) unlessGone(doing string, i instance, err error) error {
	if err == nil || i.onAgent && is404(err) {
		return nil
	}
	return r.explain(doing, fmt.Sprintf("service:write on %q", i.service.Service), err)
}

// agentChecks returns the agent's checks of an instance.
func (r *Registry) agentChecks(ctx context.Context, i instance) (map[string]*api.AgentCheck, error) {
	checks, err := r.client.Agent().ChecksWithFilterOpts(is("ServiceID", i.service.ID), query(ctx, ""))
	if err != nil {
		return nil, r.explain("asking the agent for the checks of "+i.String(), fmt.Sprintf("service:read on %q", i.service.Service), err)
	}
	return checks, nil
}

// agentsInCatalog takes an instance that the agent holds and returns it as the
// catalog holds it, which is what clients discover. unseen is true if the
// catalog does not hold it and will not hold it as available: the agent sends
// its services and checks to the servers a little later.
func (r *Registry) agentsInCatalog(ctx context.Context, i instance) (seen instance, unseen bool, err error) {
	checks, err := r.agentChecks(ctx, i)
	if err != nil {
		return i, false, err
	}
	node := ""
	for _, check := range checks {
		if check != nil && check.ServiceID == i.service.ID {
			node = check.Node // the agent's own node
		}
	}
	if node == "" {
		return i, false, nil // without a check it is available
	}
	name, ask := i.service.Service, r.client.Health().Service
	if i.isProxy() {
		name, ask = i.service.Proxy.DestinationServiceName, r.client.Health().Connect
	}
	entries, err := r.healthy(ctx, name, ask, is(ofHealth().id, i.service.ID)+" and "+is("Node.Node", node))
	if err != nil {
		return i, false, err
	}
	for _, e := range entries {
		if e.Service.ID == i.service.ID && e.Node.Node == node {
			return inEntry(e), false, nil
		}
	}
	return i, checks[api.ServiceMaintPrefix+i.service.ID] != nil, nil
}

// maintenance returns the maintenance check of an instance in the catalog, or
// nil.
func maintenance(i instance) *api.HealthCheck {
	for _, check := range i.checks {
		if check.CheckID == api.ServiceMaintPrefix+i.service.ID && check.ServiceID == i.service.ID {
			return check
		}
	}
	return nil
}

// critical reports whether one of the checks of an instance or its node is
// critical: then no client discovers it. An instance whose worst check is a
// warning is not in the passing list, but DNS returns it.
func critical(checks api.HealthChecks) bool {
	for _, check := range checks {
		if check.Status == api.HealthCritical {
			return true
		}
	}
	return false
}

// write returns the options of a write that ends with ctx.
func write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{}).WithContext(ctx)
}
