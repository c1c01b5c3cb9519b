// Package consul is the registry plug-in for HashiCorp Consul: it takes the
// pod's service instance from clients with maintenance mode, sees in the
// health endpoint that they are no longer told of it, and deregisters it when
// the app is gone.
//
// # Who holds the instance
//
// Nothing is configured; the plug-in asks. The agent at CONSUL_HTTP_ADDR is
// asked first, be it the node's or one in the pod: what it holds is withdrawn,
// restored and deregistered there, because an agent overwrites what the
// catalog says of its services (anti-entropy). What it does not hold is looked
// for in the catalog, where consul-k8s registers pods since 1.0, on a node
// without an agent (NODE-virtual), and where its catalog sync, Consul ESM and
// others register too; CONSUL_HTTP_ADDR is then a server's address. An
// instance in the catalog whose node has an agent is held by that agent: the
// plug-in says so instead of writing what would be undone.
//
// # What a withdrawal is
//
// The check "_service_maintenance:ID", critical, with a reason that names
// lastcall and the pod. An agent makes it when it is told to enter maintenance
// mode; in the catalog the plug-in registers the same check itself. Any
// critical check keeps an instance out of the health endpoint's passing list,
// out of DNS, of prepared queries and of the service mesh. It is a check of its
// own, so nothing that feeds the app's own checks (TTL heartbeats, an app that
// registers itself again, consul-k8s' controller) touches it. An app that
// registers with replace-existing-checks does remove it: Withdrawn then says
// false, and the drainer withdraws again.
//
// The sidecar proxies of the instance in Consul's service mesh (those that name
// it as their destination_service_id, as sidecar_service and consul-k8s do) are
// withdrawn with it: mesh clients are told of the proxy, by its own checks, and
// not of the service.
//
// Maintenance that somebody else has begun, with a reason of theirs, stays in
// place and is never ended by this plug-in.
//
// # What an answer of Withdrawn is worth
//
// The health endpoint is asked in the default consistency mode, in which the
// leader answers. Clients may be told of the instance for a little longer:
//   - blocking queries and agents' streamed copies (?cached) follow within
//     milliseconds as long as the client's agent is connected to a server;
//   - stale reads, which DNS uses by default, come from any server and follow
//     the leader within milliseconds too, or later when that server has lost
//     it (X-Consul-LastContact tells, dns_config.max_stale bounds it);
//   - DNS answers are kept for dns_config.service_ttl, which is 0 by default;
//   - clients that poll are told at their next poll.
//
// What was seen stands until the open calls on the same endpoints (blocking
// queries with the index of the answer) are answered.
//
// LASTCALL_CONSUL_CLIENT_REFRESH is the longest of these. Clients that read
// the catalog endpoint instead of the health endpoint see no health at all:
// they are told of the instance until it is deregistered.
//
// # An app that the sidecar registers
//
// A TTL check at the agent stands for its readiness. The maintenance mode of a
// drain is another check, so that neither undoes the other. In the catalog the
// check is written, and nothing fails by itself. See register.go.
//
// # What must outlive the drain
//
// An agent in the pod: one that is stopped before lastcall leaves the cluster
// with the instance, and cannot say any more that clients know of it. As a
// native sidecar that comes before lastcall it is stopped after it. And the
// token: consul-k8s deletes the one that a pod has logged in with as soon as it
// deregisters the pod; lastcall needs one of its own.
//
// # What a leftover is
//
// A pod that dies in the middle of its drain leaves its withdrawal behind. Where
// the next pod gets the same id (a StatefulSet's, on the same node), it would
// be out of service for ever, so Find ends a withdrawal whose reason names
// another pod or another address. Two pods that have the same name and the
// same address, one after the other (a StatefulSet in the host's network, or
// with fixed addresses), cannot be told apart by anything that Consul holds:
// registering the same definition again changes nothing in it, not even an
// index. There the leftover stays until a drain is taken back, the instance is
// deregistered, or somebody ends the maintenance by hand.
package consul
