package nacos

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// fake is a Nacos server, or a cluster of them, that follows the rules of the
// real ones: see the package comment. It has its own clock.
type fake struct {
	major   int     // 1: one layer and API v1; 2: two layers, v1 and v2; 3: v3, and the rest of v1 that 3.x has
	noV2    bool    // like 2.0 and 2.1
	noBatch bool    // like versions before 1.4
	auth    bool    // every call needs a token
	ttl     int64   // of tokens, in seconds
	protect float64 // the services' protect threshold

	mu        sync.Mutex
	ahead     time.Duration // of the machine's clock, by so much
	instances map[string]*registration
	operator  map[string]*overlay  // the second layer
	ends      map[string]time.Time // when entries of the second layer expire
	services  map[string]bool
	tokens    map[string]time.Time
	logins    int
	opened    int      // connections so far
	writes    []string // all requests that changed something
}

// registration is an instance as a client has registered it.
type registration struct {
	namespace, group, service, cluster, ip string
	port                                   int
	weight                                 float64
	enabled, ephemeral, healthy            bool
	metadata                               map[string]string
	owner                                  string // the client's id
	beat                                   time.Time
}

// overlay is what operators have set for an instance.
type overlay struct {
	enabled bool
	weight  float64
	extend  map[string]string
}

func newFake(major int, change func(*fake)) *fake {
	f := &fake{
		major: major, ttl: 18000,
		instances: map[string]*registration{}, operator: map[string]*overlay{}, ends: map[string]time.Time{},
		services: map[string]bool{}, tokens: map[string]time.Time{},
	}
	if change != nil {
		change(f)
	}
	return f
}

func (f *fake) nowLocked() time.Time { return time.Now().Add(f.ahead) }

// advance moves the clock forward.
func (f *fake) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead += d
	f.passLocked()
}

func (i *registration) serviceKey() string { return i.namespace + "/" + i.group + "@@" + i.service }

// key returns the key of the instance's entry in the second layer.
func (i *registration) key() string {
	return fmt.Sprintf("%s/%s:%d:%s", i.serviceKey(), i.ip, i.port, i.cluster)
}

// passLocked applies what happens by time alone: instances without heartbeats
// become unhealthy and are removed, and an entry of the second layer is removed
// a minute after its instance.
func (f *fake) passLocked() {
	now := f.nowLocked()
	for _, i := range f.instances {
		if !i.ephemeral || f.isConnection(i.owner) {
			continue
		}
		silent := now.Sub(i.beat)
		i.healthy = silent < 15*time.Second
		if silent >= 30*time.Second {
			f.dropLocked(i)
		}
	}
	for key, end := range f.ends {
		if !now.Before(end) {
			delete(f.operator, key)
			delete(f.ends, key)
		}
	}
}

// isConnection reports whether owner is the id of a connection, not of an
// address.
func (f *fake) isConnection(owner string) bool {
	var at, port int
	n, _ := fmt.Sscanf(owner, "%d_10.0.0.1_%d", &at, &port)
	return n == 2
}

// putLocked registers an instance. One that is registered again keeps its entry
// in the second layer; in 1.x there is no second layer.
func (f *fake) putLocked(i *registration) {
	i.beat, i.healthy = f.nowLocked(), true
	f.instances[i.key()] = i
	f.services[i.serviceKey()] = true
	delete(f.ends, i.key())
}

// dropLocked removes an instance. Its entry in the second layer stays for a
// minute.
func (f *fake) dropLocked(i *registration) {
	delete(f.instances, i.key())
	if f.operator[i.key()] != nil {
		f.ends[i.key()] = f.nowLocked().Add(time.Minute)
	}
}

// shownLocked returns an instance as answers show it, with both layers
// combined.
func (f *fake) shownLocked(i *registration) registration {
	shown := *i
	shown.metadata = maps.Clone(i.metadata)
	if o := f.operator[i.key()]; o != nil && f.major > 1 {
		shown.enabled, shown.weight = o.enabled, o.weight
		if shown.metadata == nil {
			shown.metadata = map[string]string{}
		}
		maps.Copy(shown.metadata, o.extend)
	}
	return shown
}

// allLocked returns the instances of a service.
func (f *fake) allLocked(serviceKey string) []registration {
	var all []registration
	for _, key := range slices.Sorted(maps.Keys(f.instances)) {
		if i := f.instances[key]; i.serviceKey() == serviceKey {
			all = append(all, f.shownLocked(i))
		}
	}
	return all
}

// toldLocked returns the instances that clients get: those that are enabled. If
// too few of them are healthy, all are shown as healthy.
func (f *fake) toldLocked(serviceKey string, healthyOnly bool) (told []registration, protected bool) {
	var enabled []registration
	healthy := 0
	for _, i := range f.allLocked(serviceKey) {
		if !i.enabled {
			continue
		}
		enabled = append(enabled, i)
		if i.healthy {
			healthy++
		}
	}
	if len(enabled) > 0 && float64(healthy)/float64(len(enabled)) <= f.protect {
		for n := range enabled {
			enabled[n].healthy = true
		}
		return enabled, true
	}
	if healthyOnly {
		enabled = slices.DeleteFunc(enabled, func(i registration) bool { return !i.healthy })
	}
	return enabled, false
}

// patch is a change of some fields of the second layer; nil fields are not
// changed.
type patch struct {
	enabled  *bool
	weight   *float64
	metadata map[string]string
}

// patchLocked changes what operators have set. If they have set nothing yet,
// fields that p does not contain get a default, whatever the app has
// registered.
func (f *fake) patchLocked(i *registration, p patch) {
	if f.major == 1 {
		if p.enabled != nil {
			i.enabled = *p.enabled
		}
		if p.weight != nil {
			i.weight = *p.weight
		}
		if p.metadata != nil {
			i.metadata = p.metadata
		}
		return
	}
	o := f.overlayLocked(i.key())
	if p.enabled != nil {
		o.enabled = *p.enabled
	}
	if p.weight != nil {
		o.weight = *p.weight
	}
	if p.metadata != nil {
		o.extend = p.metadata
	}
}

func (f *fake) overlayLocked(key string) *overlay {
	if f.operator[key] == nil {
		f.operator[key] = &overlay{enabled: true, weight: 1, extend: map[string]string{}}
	}
	return f.operator[key]
}

// batchLocked adds metadata keys to an instance, or removes them.
func (f *fake) batchLocked(i *registration, add map[string]string, remove bool) {
	at := &i.metadata
	if f.major > 1 {
		at = &f.overlayLocked(i.key()).extend
	}
	changed := maps.Clone(*at)
	if changed == nil {
		changed = map[string]string{}
	}
	for k, v := range add {
		if remove {
			delete(changed, k)
		} else {
			changed[k] = v
		}
	}
	*at = changed
}

// removeLocked deletes the instance if its client is identified by an address.
// An instance of a connection stays.
func (f *fake) removeLocked(named *registration) {
	i := f.instances[named.key()]
	if i != nil && i.owner == addressOwner(named) {
		f.dropLocked(i)
	}
}

// addressOwner returns the id of a client without a connection.
func addressOwner(i *registration) string {
	return fmt.Sprintf("%s:%d#%t", i.ip, i.port, i.ephemeral)
}

// connection is a gRPC client.
type connection struct {
	f  *fake
	id string
}

func (f *fake) connect() *connection {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return &connection{f, fmt.Sprintf("%d_10.0.0.1_%d", 1664527081276+f.opened, 40000+f.opened)}
}

func (c *connection) register(i registration) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	i.owner = c.id
	c.f.putLocked(&i)
}

// close ends the connection, and removes all that it has registered.
func (c *connection) close() {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	for _, i := range c.f.instances {
		if i.owner == c.id {
			c.f.dropLocked(i)
		}
	}
}

// wrote returns all requests so far that changed something.
func (f *fake) wrote() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writes)
}
