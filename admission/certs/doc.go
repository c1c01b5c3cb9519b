// Package certs keeps the webhooks' certificates: an authority of its own and a
// certificate that it signs, in one Secret that all replicas share.
//
// Plan says what is to be changed, Manager does it. Replicas need no leader: the
// Secret and the webhook configurations are written with their resource version,
// so of two replicas one wins, and the other looks again.
//
// An authority is replaced in three steps, so that at no time a replica serves a
// certificate that an API server does not trust:
//
//  1. A third of its life before its end, the next authority is put into the
//     Secret and into all caBundles. Nothing is signed by it yet.
//  2. A sixth of its life before its end, if all caBundles hold the next one, that
//     becomes the current one and signs a new certificate. The time between is for
//     API servers to hear of the caBundle.
//  3. The old authority stays in the caBundles until it has expired: longer than
//     any replica can serve what it has signed.
package certs

import "time"

// The keys of the Secret.
const (
	keyCA, keyCAKey     = "ca.crt", "ca.key"
	keyNext, keyNextKey = "next-ca.crt", "next-ca.key"
	keyOld              = "old-ca.crt"
	keyLeaf, keyLeafKey = "tls.crt", "tls.key"
)

// Lifetimes are for how long what is made is valid.
type Lifetimes struct{ CA, Leaf time.Duration }

// Defaults returns the usual lifetimes.
func Defaults() Lifetimes { return Lifetimes{CA: 365 * 24 * time.Hour, Leaf: 30 * 24 * time.Hour} }

// every is how often the Secret is looked at.
func (l Lifetimes) every() time.Duration { return min(time.Minute, l.CA/40, l.Leaf/20) }

// soonest is after how long it is looked at again the first time after a failure.
const soonest = 200 * time.Millisecond

const callLimit = 10 * time.Second
