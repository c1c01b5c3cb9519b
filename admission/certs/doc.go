// Package certs creates and renews the webhooks' certificates: its own certificate
// authority and a certificate signed by it. All replicas share them in one Secret.
//
// Plan computes the changes, and Manager applies them. Replicas need no leader: they
// write the Secret and the webhook configurations with the resource version that
// they read. If two replicas write, one succeeds, and the other reads again.
//
// An authority is replaced in three steps. At no time does a replica serve a
// certificate that an API server does not trust:
//
//  1. When a third of its life is left, the next authority is added to the Secret
//     and to all caBundles. It signs nothing yet.
//  2. When a sixth of its life is left and all caBundles have held the next authority
//     for five minutes, the next one becomes the current one and signs a new
//     certificate. In these minutes, API servers receive the caBundles, also if step
//     1 was late because no replica ran.
//  3. The old authority stays in the caBundles until it expires. No replica can
//     serve a certificate signed by it for longer.
package certs

import "time"

// The keys of the Secret.
const (
	keyCA, keyCAKey     = "ca.crt", "ca.key"
	keyNext, keyNextKey = "next-ca.crt", "next-ca.key"
	keyOld              = "old-ca.crt"
	keyLeaf, keyLeafKey = "tls.crt", "tls.key"
)

// Lifetimes are the validity periods of new certificates.
type Lifetimes struct{ CA, Leaf time.Duration }

// Defaults returns the usual lifetimes.
func Defaults() Lifetimes { return Lifetimes{CA: 365 * 24 * time.Hour, Leaf: 30 * 24 * time.Hour} }

// every returns the interval at which the Secret is checked.
func (l Lifetimes) every() time.Duration { return min(time.Minute, l.CA/40, l.Leaf/20) }

// spread returns how long all caBundles must have held an authority before it signs.
func (l Lifetimes) spread() time.Duration { return min(5*time.Minute, l.CA/18) }

// soonest is the delay before the first retry after a failure.
const soonest = 200 * time.Millisecond

const callLimit = 10 * time.Second
