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

// timing holds all that is measured in time, and how many take part.
type timing struct {
	pods    int
	clients int

	shortest, longest time.Duration // a request's work
	think             time.Duration // a client's time between requests, on average

	cache     time.Duration // how often the registry renews its answers
	fetch     time.Duration // how often a client asks it
	refresh   time.Duration // what the sidecar is told of that, with some slack
	heartbeat time.Duration

	grace     time.Duration // terminationGracePeriodSeconds
	endpoints time.Duration
	quiet     time.Duration
	calm      time.Duration // what is shown of normal life, before and after
}

// stage is where the acts are played.
type stage struct {
	timing
	dir            string   // for the pods' volumes
	appCommand     []string // starts an app, given its variable
	sidecarCommand []string // starts a sidecar
}

// result is what an act came to.
type result struct {
	snapshot
	leavings []leaving
}

// act starts a registry, pods and clients, replaces one pod after the other, as
// a Deployment does, and returns when all has ended. Nothing is left of it.
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
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // on loopback
	if err != nil {
		return r, err
	}
	server := &http.Server{Handler: reg.Handler(), ReadHeaderTimeout: callLimit}
	defer server.Close() //nolint:errcheck // nothing is left to do about it
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
