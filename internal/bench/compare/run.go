package compare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Scenario is a way in which clients find the pods.
type Scenario string

// The scenarios.
const (
	ByEndpoints Scenario = "Clients that come by Kubernetes' endpoints"
	ByRegistry  Scenario = "Half of the clients come by endpoints, half by a registry"
)

// Result is what one run came to.
type Result struct {
	Scenario Scenario
	Approach string
	Requests int
	Failures []error
	Took     time.Duration // from the hook's call to its return
	Cut      bool          // the hook did not return by itself: the grace period ended it
	// Wasted is how long, at the return, there had been neither work in
	// flight nor anybody who could still bring some.
	Wasted time.Duration
	Early  bool   // at the return there was still work, or somebody who could bring some
	Report string // what the hook said, if anything
}

// pod is an app, and what stands in front of it.
type pod struct {
	app      *app
	address  string    // where clients come to
	admin    string    // of the Envoy that stands in front, if one does
	instance *instance // in the registry; nil where there is none
	draining string    // the file at which its app closes its connections, if it does
	// hook is the app's preStop hook. It returns when SIGTERM may be sent.
	hook func(ctx context.Context) error
	said string // by the hook
	// stop is called with the app's SIGTERM, for what else is in the pod.
	stop func()
}

// run is one pod that leaves, another that stays, and their clients.
type run struct {
	workload
	scenario Scenario
	approach string
	seed     uint64
	leaving  *pod
	staying  *pod
	service  string // the registry's URL

	calm  time.Duration // what there is of normal life, before
	grace time.Duration // terminationGracePeriodSeconds
	after time.Duration // how long clients go on after the pod is gone
}

// killAfter is what the kubelet leaves an app, after SIGTERM, whose hook has
// taken all of the grace period.
const killAfter = 2 * time.Second

// play runs the clients, removes a pod as the kubelet does, and tells how it went.
func (r *run) play(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := Result{Scenario: r.scenario, Approach: r.approach}
	counts := &tally{}
	stop := make(chan struct{})
	var clients, rest sync.WaitGroup

	pods := &endpoints{addresses: []string{r.leaving.address, r.staying.address}}
	script := r.newClient(r.seed, 0, false, nil, nil).random
	for n := range r.byEndpoints {
		lag := r.lagLeast + rand64(script, r.lagMost-r.lagLeast)
		if n == 0 {
			lag = r.lagMost // somebody is the last
		}
		c := r.newClient(r.seed, uint64(n+1), n%2 == 0, func() []string { return pods.known(lag) }, counts)
		clients.Go(func() { c.run(ctx, stop) })
	}
	var found *discovery
	if r.scenario == ByRegistry {
		found = &discovery{
			workload: r.workload, service: r.service, app: r.leaving.instance.app, leaving: r.leaving.address,
			http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, tally: counts,
		}
		defer found.http.CloseIdleConnections()
		for _, p := range []*pod{r.leaving, r.staying} {
			rest.Go(func() { p.instance.renew(ctx) })
		}
		for n := range r.byRegistry {
			known := &cache{}
			first := rand64(script, r.refresh)
			rest.Go(func() { found.keep(ctx, known, first) })
			c := r.newClient(r.seed, uint64(1000+n), n%2 == 0, known.known, counts)
			clients.Go(func() {
				if sleep(ctx, time.Second) == nil { // the registry has been asked by then
					c.run(ctx, stop)
				}
			})
		}
		clients.Go(func() { found.comeUp(ctx, r.seed, stop) })
	}

	err := sleep(ctx, r.calm)
	if err == nil {
		err = r.leave(ctx, pods, found, &result)
	}
	err = errors.Join(err, sleep(ctx, r.after))
	close(stop)
	clients.Wait()
	cancel()
	rest.Wait()
	result.Requests = counts.requests
	for _, f := range counts.failures {
		result.Failures = append(result.Failures, f.err)
	}
	return result, err
}

// leave removes the pod: endpoints, hook, SIGTERM, and SIGKILL at the end of
// the grace period.
func (r *run) leave(ctx context.Context, pods *endpoints, found *discovery, result *Result) error {
	began := time.Now()
	pods.drop(began)
	within, cancel := context.WithTimeout(ctx, r.grace)
	err := r.leaving.hook(within)
	returned := time.Now()
	result.Cut = within.Err() != nil
	cancel()
	if err != nil && !result.Cut {
		return fmt.Errorf("the hook of %s: %w", r.approach, err)
	}
	result.Took = returned.Sub(began)
	result.Report = r.leaving.said

	var gone sync.WaitGroup
	if i := r.leaving.instance; i != nil {
		// As Eureka's client does in an app that is told to stop.
		gone.Go(func() {
			limited, cancel := context.WithTimeout(ctx, answerLimit)
			defer cancel()
			_ = i.cancel(limited) // the sidecar may have done it
		})
	}
	gone.Go(func() { r.leaving.app.terminate(max(r.grace-result.Took, killAfter)) })
	gone.Go(r.leaving.stop)
	gone.Wait()

	last := r.leaving.app.lastWork(returned)
	clientsUntil := began.Add(r.lagMost)
	if found != nil && found.lastClient().After(clientsUntil) {
		clientsUntil = found.lastClient()
	}
	if clientsUntil.After(last) {
		last = clientsUntil
	}
	result.Early = !last.Before(returned)
	if !result.Early {
		result.Wasted = returned.Sub(last)
	}
	return nil
}
