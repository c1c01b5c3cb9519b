package consul

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// RegisterEvery returns the interval at which the app's check is renewed.
func (r *Registry) RegisterEvery() time.Duration { return checkEvery }

// Register registers the app with a check that represents its readiness: at the
// agent, where the check fails if nobody renews it, or in the catalog, where it
// does not fail by itself. The maintenance mode of a drain is another check.
//
// A leftover of an earlier withdrawal is removed from an instance that is
// registered again, or that becomes ready again, because an agent keeps its
// maintenance mode. An instance that was ready when the process started keeps
// it: it may belong to this pod's drain.
func (r *Registry) Register(ctx context.Context, ready bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("consul at %s was not asked: %w", r.at, err)
	}
	if r.registrant.inCatalog {
		return r.registerInCatalog(ctx, ready)
	}
	return r.registerAtAgent(ctx, ready)
}

func (r *Registry) registerAtAgent(ctx context.Context, ready bool) error {
	g := r.registrant
	if state := g.seen(); state == checkFailing || state == checkPassing {
		there, err := r.updateCheck(ctx, ready)
		if err != nil {
			return err
		}
		if there {
			return r.booked(ctx, ready, state)
		}
		g.learn(checkNotSeen) // the agent was restarted
	}
	state := g.seen()
	if state == checkNotSeen || state == checkAbsent {
		var err error
		if state, err = r.atAgent(ctx); err != nil {
			return err
		}
	}
	switch {
	case !ready && state == checkAbsent:
		return nil
	case state == checkFailing || state == checkPassing, !ready:
		if there, err := r.updateCheck(ctx, ready); err != nil || there {
			if err == nil && state != checkReplaced {
				err = r.booked(ctx, ready, state)
			}
			return err
		}
		if !ready {
			return nil
		}
	}
	g.learn(checkReplaced) // until the registration has succeeded
	status, _ := said(ready)
	err := r.client.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: g.id, Name: g.service.Name, Address: g.ips[0].String(), Port: g.port,
		TaggedAddresses: g.tagged(), Meta: g.service.Metadata,
		Check: &api.AgentServiceCheck{
			CheckID: g.checkID(), Name: checkName, Status: status,
			TTL: checkFor.String(), DeregisterCriticalServiceAfter: forgottenAfter.String(),
		},
	}, api.ServiceRegisterOpts{}.WithContext(ctx))
	if is404(err) {
		return fmt.Errorf("consul at %s has no agent's API: set CONSUL_HTTP_ADDR to an agent, or LASTCALL_CONSUL_REGISTER_IN=catalog", r.at)
	}
	if err != nil {
		return r.explain("registering "+g.id, fmt.Sprintf("service:write on %q", g.service.Name), err)
	}
	return r.booked(ctx, ready, checkReplaced)
}

// booked records the check's new state. If the instance was not in service
// before, it removes what is left of an earlier withdrawal.
func (r *Registry) booked(ctx context.Context, ready bool, before checkState) error {
	g := r.registrant
	switch {
	case !ready:
		g.learn(checkFailing)
		return nil
	case before == checkPassing:
		g.learn(checkPassing)
		return nil
	}
	r.mu.Lock()
	withdrawn := r.withdrawn
	r.located = true
	r.mu.Unlock()
	if !withdrawn { // otherwise Restore ends it
		if err := r.each(ctx, func(ctx context.Context, i instance) error {
			return r.leaveMaintenance(ctx, i, func(reason string) bool { return strings.HasPrefix(reason, ours) })
		}); err != nil {
			g.learn(checkReplaced)
			return err
		}
	}
	g.learn(checkPassing)
	return nil
}

// updateCheck renews the app's check at the agent. It reports whether the agent
// has the check.
func (r *Registry) updateCheck(ctx context.Context, ready bool) (bool, error) {
	g := r.registrant
	status, output := said(ready)
	err := r.client.Agent().UpdateTTLOpts(g.checkID(), output, status, query(ctx, ""))
	switch {
	case err == nil:
		return true, nil
	case is404(err), strings.Contains(err.Error(), "nknown check"), strings.Contains(err.Error(), "associated TTL"):
		return false, nil
	}
	return false, r.explain("renewing the check of "+g.id, fmt.Sprintf("service:write on %q", g.service.Name), err)
}

// atAgent returns the state of the instance's check at the agent.
func (r *Registry) atAgent(ctx context.Context) (checkState, error) {
	g := r.registrant
	services, err := r.agentServices(ctx, is(ofAgentServices().id, g.id))
	if err != nil {
		return checkNotSeen, err
	}
	for _, s := range services {
		if s.ID != g.id {
			continue
		}
		if !g.isAsWanted(s) {
			return checkReplaced, nil
		}
		checks, err := r.agentChecks(ctx, instance{service: s, onAgent: true})
		if err != nil {
			return checkNotSeen, err
		}
		switch check := checks[g.checkID()]; {
		case check == nil:
			return checkReplaced, nil
		case check.Status == api.HealthCritical && check.Output == saysNotReady:
			return checkFailing, nil
		}
		return checkPassing, nil
	}
	return checkAbsent, nil
}
