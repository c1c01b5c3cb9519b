// Package registry is a Eureka server for the demo. It speaks the protocol with
// real clients, keeps everything in memory, and has no peers.
//
// The behaviour that matters for a drain is the same as in Netflix' server (its
// AbstractInstanceRegistry, ResponseCacheImpl and rules): a heartbeat of an unknown
// instance is answered with 404, so that its client registers again; a status
// override survives heartbeats and registrations, and ends when the instance is
// cancelled; and clients get answers from a cache that is renewed at intervals.
package registry

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// defaultLease is how long an instance is known without a heartbeat if its
	// registration does not say.
	defaultLease = 90 * time.Second
	// keepChanges is how long a change stays in apps/delta.
	keepChanges = 3 * time.Minute
	// maxInstances limits the memory, whoever uses the port.
	maxInstances = 1000
)

// Registry is the server's state.
type Registry struct {
	cache *cache

	mu        sync.Mutex // guards the fields below
	apps      map[string]map[string]*Instance
	overrides map[string]string // by instance id only, as in Netflix' server
	changes   []change          // recent changes, oldest first
	version   int
}

// change is an instance after a change.
type change struct {
	at       time.Time
	instance Instance
}

// New creates a server that renews its cached answers at the interval refresh.
func New(refresh time.Duration) *Registry {
	r := &Registry{apps: map[string]map[string]*Instance{}, overrides: map[string]string{}}
	r.cache = &cache{every: refresh, make: r.answer, now: map[question][]byte{}, shown: map[question][]byte{}}
	return r
}

// Run renews the cached answers and evicts instances with expired leases, until ctx
// ends.
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

// register adds or replaces an instance. Its status results from its registration,
// the override and its earlier status. register returns false if there is no room.
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
		i = *earlier // the registration is older and came late
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

// status returns the resulting status of an instance. DOWN and STARTING are taken
// as they are. An override replaces UP and OUT_OF_SERVICE. Without an override, an
// earlier UP or OUT_OF_SERVICE stays.
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

// renew handles a heartbeat of an app whose registration is of the time dirty (0 if
// unknown). It reports whether the instance is known and up to date. If not, the
// client must register again.
func (r *Registry) renew(app, id string, dirty Millis) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.find(app, id)
	if i == nil {
		return false
	}
	status := r.status(i, i)
	if status == Unknown {
		return false // an override was deleted, so the app's own status is unknown
	}
	i.Status = status
	i.Lease.LastRenewal = time.Now().UnixMilli()
	return dirty <= i.Dirty
}

// override sets a status override, and reports whether the instance is known. As in
// Netflix' server, nothing is recorded if the instance already has the status.
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

// removeOverride removes the override and gives the instance status until its next
// heartbeat. It reports whether the instance is known.
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

// evict removes the instances without a heartbeat within their lease.
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

// Status returns an instance's current status, or "" if it is unknown. Clients see
// it only after the cache has been renewed.
func (r *Registry) Status(app, id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.find(app, id); i != nil {
		return i.Status
	}
	return ""
}

// The functions below are called with mu held.

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

// changed records a change in apps/delta, and invalidates the current answers.
// Clients see both after the cache has been renewed.
func (r *Registry) changed(i *Instance, action string) {
	now := time.Now()
	i.Action = action
	i.Updated = Millis(now.UnixMilli())
	r.version++
	r.changes = slices.DeleteFunc(r.changes, func(c change) bool {
		same := c.instance.App == i.App && c.instance.id() == i.id() // only the latest change of each instance is kept
		return same || now.Sub(c.at) > keepChanges
	})
	r.changes = append(r.changes, change{now, *i})
	if over := len(r.changes) - maxInstances; over > 0 {
		r.changes = slices.Delete(r.changes, 0, over)
	}
	r.cache.invalidate()
}
