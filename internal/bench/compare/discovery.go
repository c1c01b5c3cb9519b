package compare

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// endpoints are those of a Service: the pods' addresses, of which the first
// leaves. Kubernetes takes a pod out when its deletion begins, before any hook;
// ingresses and kube-proxies learn of it some time later, each in its own time.
type endpoints struct {
	addresses []string
	dropped   atomic.Pointer[time.Time]
}

func (e *endpoints) drop(at time.Time) { e.dropped.Store(&at) }

// known is what one of them knows whose lag this is.
func (e *endpoints) known(lag time.Duration) []string {
	if at := e.dropped.Load(); at != nil && time.Since(*at) >= lag {
		return e.addresses[1:]
	}
	return e.addresses
}

// discovery is how clients find the app through Eureka: each asks now and
// then, and uses what it was told until it asks again.
type discovery struct {
	workload
	service, app string // the service URL, and the app's name
	leaving      string // the address of the pod that leaves
	http         *http.Client
	tally        *tally

	mu   sync.Mutex
	last time.Time // until which somebody may go by an answer that held the leaving pod
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

// lastClient is until when somebody may go by an answer that held the leaving
// pod; zero when nobody was ever given one.
func (d *discovery) lastClient() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// cache is one client's copy.
type cache struct {
	mu        sync.Mutex
	addresses []string
}

func (c *cache) known() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addresses
}

// keep keeps a copy fresh until ctx ends. The first time it is renewed after
// first, so that clients that start together do not ask together for ever.
func (d *discovery) keep(ctx context.Context, c *cache, first time.Duration) {
	for wait := first; ; wait = d.refresh {
		if addresses, err := d.fetch(ctx); err == nil {
			c.mu.Lock()
			c.addresses = addresses
			c.mu.Unlock()
		} // otherwise it goes on with what it knows
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// soon is how long before its copy ends a newcomer uses it for the last time.
const soon = 50 * time.Millisecond

// comeUp lets clients come up again and again until stop is closed: each asks
// once, and at the last moment goes by what it was told. Whenever a pod is
// dropped from the registry's answers, somebody has asked just before.
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
