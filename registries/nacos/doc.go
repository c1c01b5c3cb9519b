// Package nacos withdraws the pod's instance from Nacos 3, 2 and 1 by plain
// HTTP.
//
// # Who owns what
//
// A registration belongs to its client: a gRPC connection (clients of 2.x and
// 3.x), or the address with its heartbeats (HTTP). What an operator sets
// (enabled, weight and metadata) is a second layer in servers since 2.0. It is
// stored by service, address, port and cluster, and overrides the registration
// in every answer. So a disabled instance stays disabled through heartbeats,
// new registrations and restarts, until somebody enables it, or until a minute
// after the instance is gone. Servers of 1.x have one layer: a new registration
// enables the instance, and Withdraw is called again.
//
// Deleting an instance does not withdraw it: an instance of a gRPC connection
// stays, although the server answers ok, and a heartbeat brings back any other.
//
// # What is written
//
// Withdraw reads the instance and sets enabled=false together with the weight
// that it read: a change without a weight would set the weight to 1. An
// instance that was seen in service within the last minute is not read first:
// the withdrawal is the first request of a drain. Metadata is not sent, because
// the operator's layer would then hide what the app registers later. If the
// server can add single metadata keys (metadata/batch), the key
// lastcall.withdrawn names the pod and the connection that were withdrawn. A
// later pod with the same address can then distinguish a leftover from a change
// that somebody made on purpose. An instance that somebody else has disabled is
// left alone: it gets no mark, and is not enabled.
//
// # What is read
//
// Withdrawn reads from every server the list that clients get. A server that
// refuses connections serves nobody. A server that has been silent for half a
// minute has lost its clients to others: they leave a server that is silent for
// 20 s. An answer that is not in Nacos' own format, for example a gateway's, is
// an error.
//
// # An app that the sidecar registers
//
// The sidecar registers an ephemeral instance and keeps it alive with light
// heartbeats: they show whether the server still has the instance, and do not
// register it. If the app is not ready, the instance is deleted: the app's own
// "enabled" does not count once an operator has set it. See register.go.
//
// The rules of the servers come from the sources of Nacos 2 and 3
// (ServiceStorage, InstanceOperatorClientImpl and the controllers of the module
// naming). They were checked against Nacos 3.1.
package nacos
