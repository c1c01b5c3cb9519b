// Package consul is the registry plug-in for HashiCorp Consul. It withdraws the
// pod's service instance with maintenance mode, checks at the health endpoint
// that clients no longer get it, and deregisters it when the app is gone.
//
// # Who holds the instance
//
// This is not configured; the plug-in finds out. It queries the agent at
// CONSUL_HTTP_ADDR first, the node's agent or one in the pod. An instance that
// this agent holds is withdrawn, restored and deregistered there, because an
// agent overwrites what the catalog holds of its services (anti-entropy).
// Otherwise the plug-in looks for the instance in the catalog. consul-k8s has
// registered pods there since 1.0, on a node without an agent (NODE-virtual),
// and consul-k8s' catalog sync, Consul ESM and others register there too.
// CONSUL_HTTP_ADDR is then a server's address. If an instance in the catalog is
// on a node that has an agent, that agent holds it. The plug-in then returns an
// error instead of writing to the catalog, because the agent would undo the
// write.
//
// # What a withdrawal is
//
// It is the check "_service_maintenance:ID", critical, with a reason that names
// lastcall and the pod. An agent creates it when it is asked to enter
// maintenance mode; in the catalog the plug-in registers the same check itself.
// Any critical check keeps an instance out of the health endpoint's passing
// list, of DNS, of prepared queries and of the service mesh. It is a separate
// check, so nothing that updates the app's own checks (TTL heartbeats, an app
// that registers itself again, consul-k8s' controller) touches it. An app that
// registers with replace-existing-checks does remove it: Withdrawn then returns
// false, and the drainer withdraws again.
//
// The sidecar proxies of the instance in Consul's service mesh (those that name
// it as their destination_service_id, as sidecar_service and consul-k8s do) are
// withdrawn with it: mesh clients discover the proxy, by its own checks, and
// not the service.
//
// Maintenance that somebody else has begun, with another reason, stays in
// place. This plug-in never ends it.
//
// # What a result of Withdrawn means
//
// The plug-in queries the health endpoint in the default consistency mode, in
// which the leader answers. Clients may still discover the instance for a
// little longer:
//   - blocking queries and agents' streamed copies (?cached) follow within
//     milliseconds as long as the client's agent is connected to a server;
//   - stale reads, which DNS uses by default, come from any server. They too follow
//     the leader within milliseconds, or later if that server has lost the leader
//     (X-Consul-LastContact shows this, dns_config.max_stale limits it);
//   - DNS answers are cached for dns_config.service_ttl, which is 0 by default;
//   - clients that poll see the change at their next poll.
//
// A result stays valid until the open calls on the same endpoints (blocking
// queries with the index of the answer) return.
//
// LASTCALL_CONSUL_CLIENT_REFRESH is the longest of these. Clients that read the
// catalog endpoint instead of the health endpoint see no health at all: they
// discover the instance until it is deregistered.
//
// # An app that the sidecar registers
//
// The app's readiness is represented by a TTL check at the agent. The
// maintenance mode of a drain is another check, so that neither undoes the
// other. In the catalog the check is written, and does not fail by itself. See
// register.go.
//
// # What must outlive the drain
//
// An agent in the pod: if it is stopped before lastcall, it leaves the cluster
// with the instance, and cannot show any more whether clients still discover
// the instance. A native sidecar that is listed before lastcall is stopped
// after it. And the token: consul-k8s deletes the token with which a pod has
// logged in as soon as it deregisters the pod. Lastcall needs a token of its
// own.
//
// # What a leftover is
//
// A pod that dies in the middle of its drain leaves its withdrawal behind. If
// the next pod gets the same id (a StatefulSet's, on the same node), it would
// be out of service forever. So Find ends a withdrawal whose reason names
// another pod or another address. Two pods that have the same name and the same
// address, one after the other (a StatefulSet in the host's network, or with
// fixed addresses), cannot be distinguished by anything that Consul holds:
// registering the same definition again changes nothing in it, not even an
// index. In that case the leftover stays until a drain is taken back, the
// instance is deregistered, or somebody ends the maintenance by hand.
package consul
