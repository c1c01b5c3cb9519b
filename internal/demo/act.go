package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"lastcall/internal/demo/registry"
)

// timing holds the demo's durations, and the number of pods and clients.
type timing struct {
	pods    int
	clients int

	shortest, longest time.Duration // of a request
	think             time.Duration // a client's time between requests, on average

	cache     time.Duration // how often the registry renews its cached answers
	fetch     time.Duration // how often a client asks the registry
	refresh   time.Duration // the sidecar's setting for fetch, with some slack
	heartbeat time.Duration

	grace     time.Duration // terminationGracePeriodSeconds
	endpoints time.Duration
	quiet     time.Duration
	calm      time.Duration // normal operation shown before and after
}

// stage holds what both acts need.
type stage struct {
	timing
	dir            string   // for the pods' volumes
	appCommand     []string // starts an app; its settings are in appVariable
	sidecarCommand []string // starts a sidecar
}

// result is the result of an act.
type result struct {
	snapshot
	leavings []leaving
}

// act starts a registry, pods and clients, and replaces one pod after the other, as
// a Deployment does. When it returns, all processes have ended and no file is left.
func (s *stage) act(ctx context.Context, tr *trace, withSidecars bool) (r result, err error) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	var pods []*pod
	defer func() {
		tr.end()
		r.snapshot = tr.snapshot()
		stop()
		for _, p := range pods {
			p.kill()
		}
		running.Wait()
	}()

	reg := registry.New(s.cache)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // on the loopback interface
	if err != nil {
		return r, err
	}
	server := &http.Server{Handler: reg.Handler(), ReadHeaderTimeout: callLimit}
	defer server.Close() //nolint:errcheck // an error does not matter here
	running.Go(func() { reg.Run(ctx) })
	running.Go(func() { _ = server.Serve(listener) })
	eureka := "http://" + listener.Addr().String() + "/eureka"
	tr.say("a registry is at %s", eureka)

	launch := func() error {
		p, err := s.newPod(ctx, tr, fmt.Sprintf("web-%d", len(pods)+1), eureka, withSidecars)
		if p != nil {
			pods = append(pods, p)
		}
		return err
	}
	for range s.pods {
		if err := launch(); err != nil {
			return r, err
		}
	}
	var clients []*client
	for n := range s.clients {
		c := newClient(s.timing, eureka, tr, uint64(n))
		clients = append(clients, c)
		running.Go(func() { c.discover(ctx) })
	}
	if err := s.discovered(ctx, clients); err != nil {
		return r, err
	}
	tr.say("%d clients know %d pods, and send requests", s.clients, s.pods)
	enough := make(chan struct{})
	var sending sync.WaitGroup
	for _, c := range clients {
		sending.Go(func() { c.send(ctx, enough) })
	}

	pause(ctx, s.calm)
	for _, old := range pods[:s.pods] {
		if err = launch(); err != nil {
			break
		}
		l, failed := old.remove(ctx, s.grace)
		r.leavings = append(r.leavings, l)
		if err = failed; err != nil {
			break
		}
	}
	pause(ctx, s.calm)
	close(enough)
	sending.Wait()
	return r, errors.Join(err, ctx.Err())
}

// discoverLimit is how long the clients may take to find the pods.
const discoverLimit = 20 * time.Second

// discovered waits until each client knows each pod.
func (s *stage) discovered(ctx context.Context, clients []*client) error {
	ctx, cancel := context.WithTimeout(ctx, discoverLimit)
	defer cancel()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for _, c := range clients {
		for len(c.known()) < s.pods {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("a client knows %d of %d pods: %w", len(c.known()), s.pods, ctx.Err())
			}
		}
	}
	return nil
}
