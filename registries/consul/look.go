package consul

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/pace"
)

const (
	// trustFor is how long a result may be used without reading it again:
	// nobody else takes over an instance's id within that time.
	trustFor = time.Minute
	// watchFor is how long one open call waits for a change. Only the server
	// waits for its end.
	watchFor = 30 * time.Second
	// watchAgainAfter is the minimum time from a change to the next open call:
	// if many pods of a service leave together, each changes what all of them
	// query.
	watchAgainAfter = 500 * time.Millisecond
	// searchAgainAfter is how long, in a drain, a pod that nobody holds is not
	// searched for again: its app may yet register.
	searchAgainAfter = 2 * time.Second
	// answerWithin is how long the response of an open call takes to arrive
	// once something has changed, or the server has died.
	answerWithin = 25 * time.Millisecond
)

// endpoint is one of the endpoints where clients discover a service. The
// plug-in queries it for the pod's instances only.
type endpoint struct {
	name   string
	mesh   bool // Health.Connect, which lists sidecar proxies
	filter string
}

// ask queries an endpoint. With an index it is an open call (a blocking query),
// which returns when there may be something newer than that index.
func (r *Registry) ask(ctx context.Context, e endpoint, index uint64) ([]*api.ServiceEntry, uint64, error) {
	ask := r.client.Health().Service
	if e.mesh {
		ask = r.client.Health().Connect
	}
	options := query(ctx, e.filter)
	if index > 0 {
		options.WaitIndex, options.WaitTime = index, r.watchFor
	}
	return r.entries(e.name, ask, options)
}

// known is what was found of the pod, and when that was last seen.
type known struct {
	found []instance
	at    time.Time
}

// recent returns the pod's instances if they were seen a moment ago.
func (r *Registry) recent() []instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.known.at) > trustFor && (r.watch == nil || !r.watch.open()) {
		return nil
	}
	return slices.Clone(r.known.found)
}

// last returns the pod's instances as they were last seen.
func (r *Registry) last() []instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.known.found)
}

// endpoints returns the endpoints where clients discover the pod's instances.
func (r *Registry) endpoints(found []instance) []endpoint {
	var all []endpoint
	for _, i := range found {
		e := endpoint{i.service.Service, false, r.filter(ofHealth())}
		if i.isProxy() {
			e = endpoint{i.service.Proxy.DestinationServiceName, true, proxiesOf(ofHealth(), i.service.Proxy.DestinationServiceID)}
		}
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all
}

// look queries only the endpoints and reports whether found is gone for
// clients. The result is not sure if an endpoint does not show one of the
// instances, or shows several with its id.
func (r *Registry) look(ctx context.Context, found []instance) (gone, sure bool, w *watch, err error) {
	w = &watch{}
	shown := map[string]int{}
	gone = true
	for _, e := range r.endpoints(found) {
		entries, index, err := r.ask(ctx, e, 0)
		if err != nil {
			return false, false, nil, err
		}
		w.on = append(w.on, endpointAt{e, index})
		for _, entry := range entries {
			own := slices.ContainsFunc(found, func(i instance) bool { return i.service.ID == entry.Service.ID })
			switch {
			case own && r.isElsewhere(entry.Service, entry.Node.Address):
				return false, false, nil, nil // taken over, or on another node
			case own:
				shown[entry.Service.ID]++
			case e.mesh || !r.isPods(entry.Service, entry.Node.Address):
				continue
			}
			gone = gone && critical(entry.Checks)
		}
	}
	for _, i := range found {
		if shown[i.service.ID] != 1 {
			return false, false, nil, nil
		}
	}
	r.mu.Lock()
	r.known.at = time.Now()
	r.mu.Unlock()
	return gone, true, w, nil
}

// watch is a set of open calls that notice changes to what was seen. What was
// seen stays valid until one of them returns.
type watch struct {
	gone bool
	// missing is what keeps the instances from being listed, if that is
	// awaited.
	missing string
	on      []endpointAt
	moved   chan struct{} // closed when the result is no longer valid
	stop    context.CancelFunc
}

// endpointAt is an endpoint as of an index.
type endpointAt struct {
	endpoint
	index uint64
}

// open reports whether none of the calls has returned yet.
func (w *watch) open() bool {
	select {
	case <-w.moved:
		return false
	default:
		return true
	}
}

// stands returns the last result, and whether it is still valid.
func (r *Registry) stands() (gone, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watch == nil {
		return true, time.Now().Before(r.searchAt)
	}
	return r.watch.gone, r.watch.open()
}

// standsStill is like stands, but first gives a change that has just happened
// time to arrive.
func (r *Registry) standsStill(ctx context.Context) (gone, ok bool) {
	r.mu.Lock()
	w := r.watch
	r.mu.Unlock()
	if w != nil {
		pause := time.NewTimer(answerWithin)
		defer pause.Stop()
		select {
		case <-w.moved:
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	return r.stands()
}

// begin opens the calls of w. They end when one of them shows a change, or by
// themselves after watchFor. The next Withdrawn reads what has changed.
func (r *Registry) begin(ctx context.Context, w *watch, gone bool) {
	if len(w.on) == 0 || slices.ContainsFunc(w.on, func(e endpointAt) bool { return e.index == 0 }) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watch != nil {
		r.watch.stop()
		r.watch = nil
	}
	if !r.withdrawn {
		return // nobody needs the result
	}
	w.gone = gone
	wait := time.Duration(0)
	if now := time.Now(); now.Sub(r.watchedAt) < watchAgainAfter && gone {
		wait = pace.Less(watchAgainAfter)
	}
	r.watchedAt = time.Now().Add(wait)
	r.watch = w
	r.open(ctx, w, wait)
}

// open opens the calls of w, after a wait. They end when one of them shows a
// change, by themselves after watchFor, or when w is stopped.
func (r *Registry) open(ctx context.Context, w *watch, wait time.Duration) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // they outlive the call
	w.moved, w.stop = make(chan struct{}), cancel
	answered := make(chan struct{}, len(w.on))
	for _, e := range w.on {
		go func() {
			defer func() { answered <- struct{}{} }()
			pause := time.NewTimer(wait)
			defer pause.Stop()
			select {
			case <-pause.C:
			case <-ctx.Done():
				return
			}
			_, _, _ = r.ask(ctx, e.endpoint, e.index) // the next query sees the result or the failure
		}()
	}
	go func() {
		<-answered
		close(w.moved)
		cancel()
		select {
		case r.changes <- struct{}{}:
		default:
		}
	}()
}

// unwatch discards the last results, because something was written or will be.
func (r *Registry) unwatch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.searchAt = time.Time{}
	if r.watch != nil {
		r.watch.stop()
		r.watch = nil
	}
	if r.awaited != nil {
		r.awaited.stop()
		r.awaited = nil
	}
}

// searchLater postpones the next search, in a drain.
func (r *Registry) searchLater() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.withdrawn {
		r.searchAt = time.Now().Add(pace.Less(searchAgainAfter))
	}
}

// Changes returns a channel that receives a value when the open calls have
// shown a change. See drain.ChangeNotifier.
func (r *Registry) Changes() <-chan struct{} { return r.changes }
