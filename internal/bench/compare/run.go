package compare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Scenario is how clients find the pods.
type Scenario string

// The scenarios.
const (
	ByEndpoints Scenario = "Clients that come by Kubernetes' endpoints"
	ByRegistry  Scenario = "Half of the clients come by endpoints, half by a registry"
)

// Result is the result of one run.
type Result struct {
	Scenario Scenario
	Approach string
	Requests int
	Failures []error
	Took     time.Duration // from the hook's call to its return
	Cut      bool          // the grace period ended before the hook returned
	// Wasted is how long before the hook's return the last work had ended and the
	// last client that could bring more was gone.
	Wasted time.Duration
	Early  bool   // at the return there was still work, or a client that could bring some
	Report string // the hook's answer, if any
}

// pod is an app and the proxy in front of it, if any.
type pod struct {
	app      *app
	address  string    // the address that clients use
	admin    string    // admin address of the Envoy in front, if any
	instance *instance // in the registry; nil if not registered
	draining string    // the file that makes the app close its connections, if any
	// hook is the app's preStop hook. It returns when SIGTERM may be sent.
	hook func(ctx context.Context) error
	said string // the hook's answer
	// stop is called together with the app's SIGTERM, for the other processes of
	// the pod.
	stop func()
}

// run is a pod that is deleted, another that stays, and their clients.
type run struct {
	workload
	scenario Scenario
	approach string
	seed     uint64
	leaving  *pod
	staying  *pod
	service  string // the registry's URL

	calm  time.Duration // normal operation before the deletion
	grace time.Duration // terminationGracePeriodSeconds
	after time.Duration // how long clients continue after the pod has ended
}

// killAfter is how long the kubelet gives an app after SIGTERM if its hook has used
// the whole grace period.
const killAfter = 2 * time.Second

// play runs the clients, removes a pod as the kubelet does, and returns the result.
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
			lag = r.lagMost // one client has the longest lag
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
				if sleep(ctx, time.Second) == nil { // until then the registry has been asked
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

// leave removes the pod: endpoints, hook, SIGTERM, and SIGKILL at the end of the
// grace period.
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
		// As Eureka's client does when its app is stopped.
		gone.Go(func() {
			limited, cancel := context.WithTimeout(ctx, answerLimit)
			defer cancel()
			_ = i.cancel(limited) // the sidecar may have done it already
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
