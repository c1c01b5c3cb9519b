// Package nacos takes the pod's instance out of Nacos 3, 2 and 1 by plain HTTP.
//
// # What belongs to whom
//
// What an app registers belongs to its client: a gRPC connection (clients of 2.x
// and 3.x), or the address with its heartbeats (HTTP). What an operator writes,
// enabled and weight and metadata, is a second layer in servers from 2.0 on: it is
// kept by service, address, port and cluster, and is laid over the registration
// in every answer. So an instance that was disabled stays so through heartbeats,
// new registrations and restarts, until somebody enables it, or until a minute
// after the instance is gone. Servers of 1.x have one layer: a new registration
// enables the instance, and Withdraw is called again.
//
// Deleting an instance is no way to withdraw it: one that belongs to a gRPC
// connection stays although the server answers ok, and a heartbeat brings back
// any other.
//
// # What is written
//
// Withdraw reads the instance and sets enabled=false together with the weight
// that it read: a change without a weight would set the weight to 1. An instance
// that was seen in service within the last minute is not read again before: the
// withdrawal is the first request of a drain. Metadata is not sent, because the
// operator's layer would then hide what the app registers later. Where the server
// can add single keys of metadata (metadata/batch), the key lastcall.withdrawn
// says which pod and which connection was withdrawn, so that a later pod with the
// same address can tell a leftover from somebody's will. An instance that
// somebody else has disabled is neither marked nor enabled.
//
// # What is read
//
// Withdrawn asks every server for the list that clients get. A server that
// refuses connections serves nobody. One that has been silent for half a minute
// has lost its clients to others: they leave a server that is silent for 20 s. An
// answer that is not in Nacos' own form, as gateways give it, is an error.
//
// # An app that the sidecar registers
//
// It is an ephemeral instance, which light heartbeats keep: they show whether the
// server still has it, and do not register it. An app that is not ready is deleted:
// the enabled that an instance itself has does not count once an operator has set
// it. See register.go.
//
// The rules of the servers are from the sources of Nacos 2 and 3
// (ServiceStorage, InstanceOperatorClientImpl and the controllers of the module
// naming), and were measured with Nacos 3.1.
package nacos
