package consul

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/pace"
)

// Listed reports whether clients that query the health endpoints for passing
// instances discover each of the pod's instances; clients in the mesh, each of
// its sidecar proxies. A warning hides an instance from these clients too,
// although DNS returns it.
//
// A check that follows the pod's own readiness (see mirrorsReadiness) does not
// count: consul-k8s sets it to passing when the pod is ready, and the pod is
// not ready before Listed returns true.
//
// The reason why a pod is not listed stays valid until an open call shows a
// change.
func (r *Registry) Listed(ctx context.Context) (listed bool, why string, err error) {
	if err := ctx.Err(); err != nil {
		return false, "", fmt.Errorf("consul at %s was not asked: %w", r.at, err)
	}
	if why, ok := r.stillMissing(); ok {
		return false, why, nil
	}
	if found := r.last(); len(found) > 0 {
		missing, shown, w, err := r.lookListed(ctx, found)
		if err != nil {
			return false, "", err
		}
		if shown {
			r.await(ctx, w, missing)
			return missing == "", missing, nil
		}
	}
	found, err := r.locate(ctx)
	if err != nil {
		return false, "", err
	}
	if len(found) == 0 {
		return false, fmt.Sprintf("consul at %s: no %s", r.at, r.wanted()), nil
	}
	missing, _, w, err := r.lookListed(ctx, found)
	if err != nil {
		return false, "", err
	}
	r.await(ctx, w, missing)
	return missing == "", missing, nil
}

// lookListed queries the health endpoints and returns what keeps found from
// being listed; empty if nothing does. shown is false if an endpoint does not
// hold one of them.
func (r *Registry) lookListed(ctx context.Context, found []instance) (missing string, shown bool, w *watch, err error) {
	w = &watch{}
	entries := map[string][]*api.ServiceEntry{} // by the service's id
	mirrored := false
	for _, e := range r.endpoints(found) {
		all, index, err := r.ask(ctx, e, 0)
		if err != nil {
			return "", false, nil, err
		}
		w.on = append(w.on, endpointAt{e, index})
		for _, entry := range all {
			own := slices.ContainsFunc(found, func(i instance) bool { return i.service.ID == entry.Service.ID })
			if !own || r.isElsewhere(entry.Service, entry.Node.Address) {
				continue
			}
			entries[entry.Service.ID] = append(entries[entry.Service.ID], entry)
			mirrored = mirrored || slices.ContainsFunc(entry.Checks, func(c *api.HealthCheck) bool { return mirrorsReadiness(c) && c.Status != api.HealthPassing })
		}
	}
	for _, i := range found {
		at := entries[i.service.ID]
		if len(at) == 0 {
			return "the catalog does not hold " + i.String() + " yet", false, w, nil
		}
		why := ""
		for _, entry := range at {
			if why = keepsOut(entry.Checks, mirrored); why == "" {
				break
			}
		}
		if why != "" {
			return i.String() + ": " + why, true, w, nil
		}
	}
	return "", true, w, nil
}

// keepsOut returns which check keeps an instance from clients; empty if none
// does. An alias check follows all checks of the pod's service, including those
// that do not count.
func keepsOut(checks api.HealthChecks, mirrored bool) string {
	for _, check := range checks {
		if check.Status == api.HealthPassing || mirrorsReadiness(check) || mirrored && check.Type == "alias" {
			continue
		}
		return fmt.Sprintf("its check %q (%s) is %s", check.CheckID, check.Name, check.Status)
	}
	return ""
}

// mirrorsReadiness reports whether a check is one that consul-k8s sets to
// passing when the pod is ready, and to critical when it is not: the check of
// its endpoints controller, of its catalog sync, and of the versions before 1.0
// on the node's agent (control-plane/connect-inject/constants/constants.go,
// control-plane/catalog/to-consul/resource.go and
// consul_client_health_checks.go in hashicorp/consul-k8s).
func mirrorsReadiness(check *api.HealthCheck) bool {
	return check.Type == "kubernetes-readiness" || check.Name == "Kubernetes Readiness Check" || check.Name == "Kubernetes Health Check"
}

// stillMissing returns what was last missing, and whether that is still valid.
func (r *Registry) stillMissing() (why string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.awaited == nil || !r.awaited.open() {
		return "", false
	}
	return r.awaited.missing, true
}

// await opens the calls of w, which notice a change to what is missing. If
// nothing is missing, it opens none.
func (r *Registry) await(ctx context.Context, w *watch, missing string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.awaited != nil {
		r.awaited.stop()
		r.awaited = nil
	}
	uncertain := slices.ContainsFunc(w.on, func(e endpointAt) bool { return e.index == 0 })
	if missing == "" || len(w.on) == 0 || uncertain || r.withdrawn {
		return
	}
	wait := time.Duration(0)
	if now := time.Now(); now.Sub(r.awaitedAt) < watchAgainAfter {
		wait = pace.Less(watchAgainAfter)
	}
	r.awaitedAt = time.Now().Add(wait)
	w.missing = missing
	r.awaited = w
	r.open(ctx, w, wait)
}
