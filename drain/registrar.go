package drain

import (
	"context"
	"time"
)

// Registrar is a Registry that can register the instance itself, for an app that
// has no client of the registry (NamedRegistry.Register). Its methods are called
// one at a time with all others, and are idempotent; their contexts end after 5 s.
type Registrar interface {
	// Register is called when the app is first seen to be ready or not, when that
	// changes, and then every RegisterEvery, until it succeeds. It is never called
	// while the pod drains: a lease that ends then takes out what is to be taken
	// out, and a renewal may come back from one server to another when the
	// instance has been deregistered.
	//
	// With ready, the registry holds the instance as one in service, and goes on
	// doing so for longer than RegisterEvery: what it holds is renewed, and what
	// it has lost, or holds of an earlier pod, is registered again. What is
	// registered again is in service whatever an earlier withdrawal has left, but
	// for one by a Withdraw that no Restore has undone. Without ready, clients are
	// no longer given the instance, and nothing is registered again.
	Register(ctx context.Context, ready bool) error
	// RegisterEvery is called once, by New.
	RegisterEvery() time.Duration
}

// Service is an app as the sidecar registers it, at the pod's first address and
// AppPort.
type Service struct {
	Name     string
	Metadata map[string]string
}
