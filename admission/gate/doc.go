// Package gate keeps a pod from being deleted before it is drained.
//
// A pod with the label goes through these steps:
//
//  1. A user or controller asks the API server to delete or evict the pod. The API
//     server calls Gate.Webhook, which denies the request with 429 and records it on the pod.
//     Decide makes the decision, and Request is the record.
//  2. The controller, Gate.Run, sees the recorded request and begins a drain at the
//     pod's sidecar. The drain has no time limit.
//  3. When the pod has drained, the controller marks the record as released. From
//     then on, all requests are allowed. The controller itself deletes or evicts
//     the pod as requested.
//
// All state that must outlive the process is on the pod. Any number of replicas work
// on the same pods without a leader: each step is either an update that requires a
// certain version of the pod, or idempotent.
package gate

import "time"

// Names that are documented and must not change.
const (
	Label     = "lastcall/gate"         // label; the value is "true"; on namespaces too, for evictions
	Timeout   = "lastcall/gate-timeout" // annotation: how long the gate waits at most
	OnTimeout = "lastcall/on-timeout"   // annotation: "hold" or "release"
	// Recorded is the annotation that holds a Request. Removing it cancels the
	// request and the drain.
	Recorded = "lastcall/gate-request"
	// Begun is the annotation that holds the UID of the pod for which the gate has
	// begun a drain. With it, the gate finds drains whose request was removed.
	Begun = "lastcall/gate-drain"

	sidecarName = "lastcall"
	defaultPort = 8099
	mirror      = "kubernetes.io/config.mirror"
)

// Fixed timeouts and intervals.
const (
	callLimit   = 10 * time.Second // of one call of the API server
	sidecarCall = 2 * time.Second  // of one call of a sidecar
	pollEvery   = 500 * time.Millisecond
	evictEvery  = 5 * time.Second // as kubectl drain does
)
