package consul

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// mostServices limits the number of services that a search of the catalog
// reads. Servers before Consul 1.14 do not filter their list of services. If
// they have more services, the search fails with an error about it.
const mostServices = 100

// serfHealth is the check that shows that a node has an agent, and whether the
// other agents can reach it.
const serfHealth = "serfHealth"

// instance is one registration of the pod: its service, or a sidecar proxy of
// that service.
type instance struct {
	service *api.AgentService
	onAgent bool // the agent at CONSUL_HTTP_ADDR holds it
	// The following fields are only set for instances in the catalog.
	node   *api.Node
	checks api.HealthChecks
}

// locate returns the pod's instances from whoever holds them; none if nobody
// does.
func (r *Registry) locate(ctx context.Context) ([]instance, error) {
	found, err := r.onAgent(ctx)
	if err == nil && len(found) == 0 {
		found, err = r.inCatalog(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := r.refuse(found); err != nil {
		return nil, err
	}
	r.remember(found)
	return found, nil
}

// onAgent returns the pod's instances that the agent holds.
func (r *Registry) onAgent(ctx context.Context) ([]instance, error) {
	services, err := r.agentServices(ctx, r.filter(ofAgentServices()))
	if err != nil {
		return nil, err
	}
	var found []instance
	for _, service := range services {
		here := r.isPods(service, "")
		if !here && r.id == "" && service.Address == "" && service.Port == r.pod.AppPort {
			if here, err = r.isAtNode(ctx, service); err != nil {
				return nil, err
			}
		}
		if here {
			found = append(found, instance{service: service, onAgent: true})
		}
	}
	for _, of := range found {
		proxies, err := r.agentServices(ctx, proxiesOf(ofAgentServices(), of.service.ID))
		if err != nil {
			return nil, err
		}
		for _, proxy := range proxies {
			if isProxyOf(proxy, of.service) {
				found = append(found, instance{service: proxy, onAgent: true})
			}
		}
	}
	return found, nil
}

// agentServices returns the services of the agent that match filter. It returns
// none if CONSUL_HTTP_ADDR offers only the catalog's API.
func (r *Registry) agentServices(ctx context.Context, filter string) ([]*api.AgentService, error) {
	services, err := r.client.Agent().ServicesWithFilterOpts(filter, query(ctx, ""))
	switch {
	case is404(err):
		return nil, nil
	case err != nil:
		return nil, r.explain("asking the agent for the pod's service", "service:read", err)
	}
	ids := make([]string, 0, len(services))
	for id, service := range services {
		if service != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	found := make([]*api.AgentService, len(ids))
	for i, id := range ids {
		found[i] = services[id]
	}
	return found, nil
}

// isAtNode reports whether a service that the agent holds without an address is
// at the pod's address, because its node is. Only the catalog shows the node's
// address to everybody.
func (r *Registry) isAtNode(ctx context.Context, service *api.AgentService) (bool, error) {
	s := ofHealth()
	entries, _, err := r.client.Health().Service(service.Service, "", false,
		query(ctx, is(s.id, service.ID)+" and "+is(s.address, "")+" and "+r.isOneOf(s.node)))
	if err != nil {
		return false, r.explain(fmt.Sprintf("asking for the node of service %q", service.ID), "service:read and node:read", err)
	}
	return slices.ContainsFunc(entries, func(e *api.ServiceEntry) bool {
		return whole(e) && e.Service.ID == service.ID && e.Service.Address == "" && r.isOwnAddress(e.Node.Address)
	}), nil
}

// inCatalog returns the pod's instances that the catalog holds. It searches the
// whole catalog only if no instance was ever seen; after that the service's
// name is known.
func (r *Registry) inCatalog(ctx context.Context) ([]instance, error) {
	names := r.remembered()
	if len(names) == 0 {
		var err error
		if names, err = r.search(ctx); err != nil {
			return nil, err
		}
	}
	var found []instance
	for _, name := range names {
		entries, err := r.healthy(ctx, name, r.client.Health().Service, r.filter(ofHealth()))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if r.isPods(e.Service, e.Node.Address) {
				found = append(found, inEntry(e))
			}
		}
	}
	found, err := r.choose(found)
	if err != nil {
		return nil, err
	}
	for _, of := range found {
		proxies, err := r.proxiesInCatalog(ctx, of)
		if err != nil {
			return nil, err
		}
		found = append(found, proxies...)
	}
	return found, nil
}

// search returns the names of the services in which the pod may have an
// instance. It sends one query, for which the servers go through the whole
// catalog.
func (r *Registry) search(ctx context.Context) ([]string, error) {
	services, meta, err := r.client.Catalog().Services(query(ctx, r.filter(ofCatalogServices())))
	if err != nil {
		return nil, r.explain("searching the catalog for the pod's service", "service:read", err)
	}
	switch {
	case len(services) > mostServices:
		return nil, fmt.Errorf("consul at %s: searching the catalog for the %s: %d services are too many to look into, at most %d; servers before Consul 1.14 cannot search", r.at, r.wanted(), len(services), mostServices)
	case len(services) == 0 && (meta.ResultsFilteredByACLs || r.anonymous && meta.DefaultACLPolicy == "deny"):
		return nil, r.blind("the pod's service")
	}
	names := make([]string, 0, len(services))
	for name := range services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// choose selects the pod's instance among several with its id: an id only has
// to be unique on its node.
func (r *Registry) choose(found []instance) ([]instance, error) {
	if r.id == "" || len(found) < 2 {
		return found, nil
	}
	here := slices.DeleteFunc(slices.Clone(found), func(i instance) bool { return !r.isAt(i.service, i.node.Address) })
	if len(here) == 0 {
		return nil, fmt.Errorf("consul at %s: %d nodes have a service instance %q, none of them at LASTCALL_POD_IP=%s: set CONSUL_HTTP_ADDR to the agent that holds the pod's",
			r.at, len(found), r.id, r.addresses())
	}
	return here, nil
}

// proxiesInCatalog returns the sidecar proxies of an instance in the catalog,
// as clients in the mesh discover them.
func (r *Registry) proxiesInCatalog(ctx context.Context, of instance) ([]instance, error) {
	entries, err := r.healthy(ctx, of.service.Service, r.client.Health().Connect,
		proxiesOf(ofHealth(), of.service.ID)+" and "+is("Node.Node", of.node.Node))
	if err != nil {
		return nil, err
	}
	var proxies []instance
	for _, e := range entries {
		if e.Node.Node == of.node.Node && isProxyOf(e.Service, of.service) {
			proxies = append(proxies, inEntry(e))
		}
	}
	return proxies, nil
}

// healthQuery is one of the two endpoints where clients discover a service and
// its health: Health.Service, or Health.Connect for clients in the mesh.
type healthQuery = func(service, tag string, passingOnly bool, q *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error)

// healthy queries a health endpoint for all instances, healthy or not, that
// match filter.
func (r *Registry) healthy(ctx context.Context, name string, ask healthQuery, filter string) ([]*api.ServiceEntry, error) {
	entries, _, err := r.entries(name, ask, query(ctx, filter))
	return entries, err
}

// entries queries a health endpoint. It also returns the index of the answer.
func (r *Registry) entries(name string, ask healthQuery, options *api.QueryOptions) ([]*api.ServiceEntry, uint64, error) {
	entries, meta, err := ask(name, "", false, options)
	if err != nil {
		return nil, 0, r.explain(fmt.Sprintf("asking for the health of service %q", name), "service:read and node:read", err)
	}
	entries = slices.DeleteFunc(entries, func(e *api.ServiceEntry) bool { return !whole(e) })
	if len(entries) == 0 && meta.ResultsFilteredByACLs {
		return nil, 0, r.blind(fmt.Sprintf("all of service %q", name))
	}
	return entries, meta.LastIndex, nil
}

// blind returns the error for an empty answer that may be due to missing
// rights.
func (r *Registry) blind(what string) error {
	return fmt.Errorf("consul at %s: the token in CONSUL_HTTP_TOKEN may not see %s: it needs node:read, and service:write on the service and its sidecar proxy", r.at, what)
}

// wanted describes the instance that is looked for.
func (r *Registry) wanted() string {
	if r.id != "" {
		return fmt.Sprintf("service instance %q", r.id)
	}
	at := make([]string, len(r.pod.Addresses()))
	for n, ip := range r.pod.Addresses() {
		at[n] = net.JoinHostPort(ip.String(), strconv.Itoa(r.pod.AppPort))
	}
	return "service instance at " + strings.Join(at, " or ")
}

// heldByAgent returns an error if an instance in the catalog is on a node that
// has an agent: that agent holds it, and undoes what is written to the catalog.
func (i instance) heldByAgent(at string) error {
	if i.onAgent || !slices.ContainsFunc(i.checks, func(c *api.HealthCheck) bool { return c.CheckID == serfHealth && c.ServiceID == "" }) {
		return nil
	}
	return fmt.Errorf("consul at %s: service instance %q is held by another agent, of node %q: set CONSUL_HTTP_ADDR to it, usually http://%s",
		at, i.service.ID, i.node.Node, net.JoinHostPort(i.node.Address, "8500"))
}

func inEntry(e *api.ServiceEntry) instance {
	return instance{service: e.Service, node: e.Node, checks: e.Checks}
}

// whole reports whether an entry has all fields that the plug-in reads.
func whole(e *api.ServiceEntry) bool {
	return e != nil && e.Node != nil && e.Service != nil && !slices.Contains(e.Checks, nil)
}

// isProxy reports whether i is a sidecar proxy. The catalog gives services
// proxy settings too, but empty ones.
func (i instance) isProxy() bool {
	return i.service.Kind == api.ServiceKindConnectProxy && i.service.Proxy != nil
}

func isProxyOf(proxy, service *api.AgentService) bool {
	return proxy.ID != service.ID && proxy.Proxy != nil && proxy.Proxy.DestinationServiceID == service.ID
}

// query returns the options of a read that ends with ctx.
func query(ctx context.Context, filter string) *api.QueryOptions {
	return (&api.QueryOptions{Filter: filter}).WithContext(ctx)
}
