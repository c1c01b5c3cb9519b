// Package gate keeps a pod from being deleted before it is drained.
//
// What happens to a pod with the label, in this order:
//
//  1. Somebody asks the API server to delete or to evict it. The API server asks
//     Webhook, which denies that with 429 and records on the pod what was asked.
//     Decide says what is denied, Request is what is recorded.
//  2. Controller sees the recorded request, and begins a drain at the pod's
//     sidecar that takes as long as it takes.
//  3. When the pod has drained, Controller notes that on the pod, from when on
//     everybody is let through, and does itself what was asked.
//
// Everything that must outlive the process is on the pod. Any number of replicas
// do the same for each pod without a leader: each step is either a change that
// names the version of the pod that it is made to, or one that has no effect the
// second time.
package gate

import "time"

// Names that are fixed: the project's documents promise them.
const (
	Label     = "lastcall/gate"         // label; the value is "true"; on namespaces too, for evictions
	Timeout   = "lastcall/gate-timeout" // annotation: how long the gate waits at most
	OnTimeout = "lastcall/on-timeout"   // annotation: "hold" or "release"
	// Recorded is the annotation that holds a Request. Removing it takes the
	// request and the drain back.
	Recorded = "lastcall/gate-request"
	// Begun is the annotation that says for which pod, by its UID, the gate has
	// begun a drain. It is how a drain whose request was removed is found.
	Begun = "lastcall/gate-drain"

	sidecarName = "lastcall"
	defaultPort = 8099
	mirror      = "kubernetes.io/config.mirror"
)

// Times that are the same everywhere.
const (
	callLimit   = 10 * time.Second // of one call of the API server
	sidecarCall = 2 * time.Second  // of one call of a sidecar
	pollEvery   = 500 * time.Millisecond
	evictEvery  = 5 * time.Second // as kubectl drain does
)
