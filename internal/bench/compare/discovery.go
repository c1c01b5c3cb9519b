package compare

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// endpoints are the endpoints of a Service: the pods' addresses. The first pod is
// the one to be deleted. Kubernetes removes a pod when its deletion begins, before
// any hook. Ingresses and kube-proxies learn of it some time later, each with its
// own lag.
type endpoints struct {
	addresses []string
	dropped   atomic.Pointer[time.Time]
}

func (e *endpoints) drop(at time.Time) { e.dropped.Store(&at) }

// known returns the addresses that a client with the given lag uses.
func (e *endpoints) known(lag time.Duration) []string {
	if at := e.dropped.Load(); at != nil && time.Since(*at) >= lag {
		return e.addresses[1:]
	}
	return e.addresses
}

// discovery is how clients find the app through Eureka: each client asks at
// intervals, and uses an answer until it asks again.
type discovery struct {
	workload
	service, app string // the service URL, and the app's name
	leaving      string // address of the pod to be deleted
	http         *http.Client
	tally        *tally

	mu   sync.Mutex
	last time.Time // until when a client may use an answer with the leaving pod
}

func (d *discovery) fetch(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	addresses, err := fetch(ctx, d.http, d.service, d.app)
	if slices.Contains(addresses, d.leaving) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if until := time.Now().Add(d.refresh); until.After(d.last) {
			d.last = until
		}
	}
	return addresses, err
}

// lastClient returns the time until which a client may use an answer with the
// leaving pod, or zero if there was none.
func (d *discovery) lastClient() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// cache is one client's copy of an answer.
type cache struct {
	mu        sync.Mutex
	addresses []string
}

func (c *cache) known() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addresses
}

// keep refreshes a copy until ctx ends. The first refresh is after first, so that
// clients that start together do not ask at the same moments forever.
func (d *discovery) keep(ctx context.Context, c *cache, first time.Duration) {
	for wait := first; ; wait = d.refresh {
		if addresses, err := d.fetch(ctx); err == nil {
			c.mu.Lock()
			c.addresses = addresses
			c.mu.Unlock()
		} // otherwise the client keeps its copy
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// soon is how long before its copy expires a newcomer uses it for the last time.
const soon = 50 * time.Millisecond

// comeUp starts new clients repeatedly until stop is closed. Each asks once, and
// uses the answer at the last possible moment. So whenever a pod is removed from
// the registry's answers, some client has asked just before.
func (d *discovery) comeUp(ctx context.Context, seed uint64, stop <-chan struct{}) {
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(d.newcomers)
	defer tick.Stop()
	for number := uint64(10_000); ; number++ {
		select {
		case <-stop:
			return
		case <-tick.C:
			c := d.newClient(seed, number, false, nil, d.tally)
			all.Go(func() { d.newcomer(ctx, c, stop) })
		}
	}
}

func (d *discovery) newcomer(ctx context.Context, c *client, stop <-chan struct{}) {
	addresses, err := d.fetch(ctx)
	if err != nil || !slices.Contains(addresses, d.leaving) {
		return
	}
	timer := time.NewTimer(d.refresh - soon)
	defer timer.Stop()
	select {
	case <-stop:
		return
	case <-timer.C:
	}
	took, _, _ := c.next()
	d.tally.add(c.request(ctx, d.leaving, took))
}
