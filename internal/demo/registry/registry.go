// Package registry is a Eureka server for the demo: one that speaks the
// protocol to real clients, keeps everything in memory, and has no peers.
//
// What matters to a pod that leaves is as in Netflix' server (its
// AbstractInstanceRegistry, ResponseCacheImpl and rules): heartbeats of an
// instance that is not known are answered with 404, so that its client
// registers again; a status override survives heartbeats and registrations, and
// ends with a cancellation; and clients are answered from a cache that is
// renewed now and then.
package registry

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// defaultLease is how long an instance is known without a heartbeat, where
	// its registration does not say.
	defaultLease = 90 * time.Second
	// keepChanges is for how long apps/delta tells of a change.
	keepChanges = 3 * time.Minute
	// maxInstances bounds the memory, whoever finds the port.
	maxInstances = 1000
)

// Registry is the server's state. Its times are taken from now.
type Registry struct {
	cache *cache

	mu        sync.Mutex // guards what follows
	apps      map[string]map[string]*Instance
	overrides map[string]string // by instance id alone, as in Netflix' server
	changes   []change          // of the last minutes, oldest first
	version   int
}

// change is an instance as it was made.
type change struct {
	at       time.Time
	instance Instance
}

// New makes a server that renews its answers to clients every refresh.
func New(refresh time.Duration) *Registry {
	r := &Registry{apps: map[string]map[string]*Instance{}, overrides: map[string]string{}}
	r.cache = &cache{every: refresh, make: r.answer, now: map[question][]byte{}, shown: map[question][]byte{}}
	return r
}

// Run renews the answers and evicts instances whose lease has run out, until
// ctx ends.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(r.cache.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.evict(time.Now())
			r.cache.refresh()
		}
	}
}

// register takes an instance in, as its client describes it, with the status
// that an override, or the instance's earlier registration, leaves it. It
// returns false when there is no room.
func (r *Registry) register(told *Instance) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := *told
	i.App = strings.ToUpper(i.App)
	earlier := r.find(i.App, i.id())
	if earlier == nil && r.count() >= maxInstances {
		return false
	}
	if earlier != nil && earlier.Dirty > i.Dirty {
		i = *earlier // an older message that came late
	}
	if i.Overridden != "" && i.Overridden != Unknown && r.overrides[i.id()] == "" {
		r.overrides[i.id()] = i.Overridden
	}
	i.Overridden = Unknown
	if override := r.overrides[i.id()]; override != "" {
		i.Overridden = override
	}
	i.Status = r.status(&i, earlier)
	i.Coordinating = "false"
	now := time.Now()
	i.Lease.LastRenewal = now.UnixMilli()
	i.Lease.Registration = now.UnixMilli()
	if i.Status == Up {
		i.Lease.ServiceUp = now.UnixMilli()
	}
	if r.apps[i.App] == nil {
		r.apps[i.App] = map[string]*Instance{}
	}
	r.apps[i.App][i.id()] = &i
	r.changed(&i, added)
	return true
}

// status is what an instance is said to be: DOWN and STARTING are believed; an
// override beats UP and OUT_OF_SERVICE; and what those were before stays.
func (r *Registry) status(i, earlier *Instance) string {
	switch {
	case i.Status != Up && i.Status != OutOfService:
		return i.Status
	case r.overrides[i.id()] != "":
		return r.overrides[i.id()]
	case earlier != nil && (earlier.Status == Up || earlier.Status == OutOfService):
		return earlier.Status
	}
	return i.Status
}

// renew takes a heartbeat of an app whose registration is of the time dirty (0
// when it does not say), and reports whether the instance is known and up to
// date. If it is not, the client is to register again.
func (r *Registry) renew(app, id string, dirty Millis) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(app, id)
	if i == nil {
		return false
	}
	status := r.status(i, i)
	if status == Unknown {
		return false // an override was deleted: what the app says is not known
	}
	i.Status = status
	i.Lease.LastRenewal = time.Now().UnixMilli()
	return dirty <= i.Dirty
}

// override sets a status over the instance's own, and reports whether the
// instance is known. As in Netflix' server, nothing is recorded of what does
// not differ.
func (r *Registry) override(app, id, status string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(app, id)
	if i == nil {
		return false
	}
	i.Lease.LastRenewal = time.Now().UnixMilli()
	if i.Status == status {
		return true
	}
	r.overrides[i.id()] = status
	i.Overridden, i.Status = status, status
	r.changed(i, modified)
	return true
}

// removeOverride leaves the instance with status until its next heartbeat, and
// reports whether the instance is known.
func (r *Registry) removeOverride(app, id, status string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(app, id)
	if i == nil {
		return false
	}
	i.Lease.LastRenewal = time.Now().UnixMilli()
	if r.overrides[i.id()] == "" {
		return true
	}
	delete(r.overrides, i.id())
	i.Overridden, i.Status = Unknown, status
	r.changed(i, modified)
	return true
}

// cancel removes the instance and its override, and reports whether it was known.
func (r *Registry) cancel(app, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(app, id)
	delete(r.overrides, id)
	if i == nil {
		return false
	}
	r.remove(i)
	return true
}

// evict removes the instances that have sent no heartbeat within their lease.
func (r *Registry) evict(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, instances := range r.apps {
		for _, i := range instances {
			lease := defaultLease
			if i.Lease.Duration > 0 {
				lease = time.Duration(i.Lease.Duration) * time.Second
			}
			if now.Sub(time.UnixMilli(i.Lease.LastRenewal)) > lease {
				r.remove(i)
			}
		}
	}
}

// Status tells an instance's status now, "" when it is not known. Clients are
// told of it only when the cache is renewed.
func (r *Registry) Status(app, id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(app, id); i != nil {
		return i.Status
	}
	return ""
}

// What follows is called with mu held.

func (r *Registry) find(app, id string) *Instance { return r.apps[strings.ToUpper(app)][id] }

func (r *Registry) count() (n int) {
	for _, instances := range r.apps {
		n += len(instances)
	}
	return n
}

func (r *Registry) remove(i *Instance) {
	delete(r.apps[i.App], i.id())
	if len(r.apps[i.App]) == 0 {
		delete(r.apps, i.App)
	}
	r.changed(i, deleted)
}

// changed books a change: apps/delta will tell of it, and answers to clients
// are created again, to be shown when the cache is renewed.
func (r *Registry) changed(i *Instance, action string) {
	now := time.Now()
	i.Action = action
	i.Updated = Millis(now.UnixMilli())
	r.version++
	r.changes = slices.DeleteFunc(r.changes, func(c change) bool {
		same := c.instance.App == i.App && c.instance.id() == i.id() // each is told of once, as it is now
		return same || now.Sub(c.at) > keepChanges
	})
	r.changes = append(r.changes, change{now, *i})
	if over := len(r.changes) - maxInstances; over > 0 {
		r.changes = slices.Delete(r.changes, 0, over)
	}
	r.cache.invalidate()
}
