package nacos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"lastcall/drain"
)

// beatEvery is the interval at which a registration is renewed. Nacos' clients
// use the same: an instance is unhealthy 15 s after its last heartbeat, and
// deleted after 30 s.
const beatEvery = 5 * time.Second

// Codes of the answer to a heartbeat in the API before v3 (NamingResponseCode
// in Nacos): the instance is renewed, or it is not registered.
const (
	beatTaken  = 10200
	beatNobody = 20404
)

// checkService returns an error if cfg contradicts the service that is to be
// registered.
func checkService(cfg Config, pod drain.Pod) error {
	for _, name := range trimmed(cfg.Services) {
		if name != pod.Service.Name {
			return fmt.Errorf("LASTCALL_NACOS_SERVICE=%q and LASTCALL_SERVICE_NAME=%q: must be the same where LASTCALL_REGISTER=true; set only LASTCALL_SERVICE_NAME", name, pod.Service.Name)
		}
	}
	return nil
}

// RegisterEvery returns the interval at which the registration is renewed.
func (r *Registry) RegisterEvery() time.Duration { return beatEvery }

// Register registers the app as an ephemeral instance that heartbeats keep
// alive. If the app is not ready, it deletes the instance: the app's own
// "enabled" no longer counts once an operator has set it.
//
// An earlier withdrawal leaves a record that outlives the instance by a minute.
// It is cleared from an instance that is registered again. An instance that
// existed when the process started keeps its withdrawal: it may belong to this
// pod's drain.
func (r *Registry) Register(ctx context.Context, ready bool) error {
	return r.forTargets(ctx, func(ctx context.Context, s *server, t *target) error {
		if !ready {
			return r.takeAway(ctx, s, t)
		}
		beating, err := s.beat(ctx, t, r.registeredAs(t))
		if err != nil {
			return err
		}
		if !beating {
			r.setFresh(t, true, false)
			if err := s.register(ctx, t, r.registeredAs(t), r.service); err != nil {
				return err
			}
		}
		return r.clearFresh(ctx, s, t)
	})
}

// takeAway deletes the instance of an app that is not ready, once.
func (r *Registry) takeAway(ctx context.Context, s *server, t *target) error {
	r.mu.Lock()
	done := t.away
	r.mu.Unlock()
	if done {
		return ctx.Err()
	}
	if err := s.remove(ctx, t, r.registeredAs(t), true); err != nil {
		return err
	}
	r.setFresh(t, false, true)
	return nil
}

// clearFresh enables an instance that was registered again but is disabled by
// an earlier withdrawal, as soon as the server shows it.
func (r *Registry) clearFresh(ctx context.Context, s *server, t *target) error {
	r.mu.Lock()
	waits := !t.fresh || r.draining
	r.mu.Unlock()
	if waits {
		return nil
	}
	h, enabled, found, err := r.look(ctx, s, t)
	if err != nil || !found {
		return err
	}
	if _, hasMark := markOf(h); !enabled || hasMark {
		r.setTried(t, !enabled)
		if err := r.restore(ctx, s, t); err != nil {
			return fmt.Errorf("an earlier withdrawal is still there and could not be undone: %w", err)
		}
	}
	r.setFresh(t, false, false)
	return nil
}

func (r *Registry) setFresh(t *target, fresh, away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.fresh, t.away = fresh, away
}

// registeredAs returns the name under which the sidecar registers the instance.
func (r *Registry) registeredAs(t *target) naming { return naming{t.ip.String(), t.cluster} }

// clientPath returns the path of the calls with which apps register.
func clientPath(v version) string {
	if v == v3 {
		return "/v3/client/ns/instance"
	}
	return instancePath(v)
}

// register registers the instance as enabled.
func (s *server) register(ctx context.Context, t *target, as naming, of drain.Service) error {
	metadata := of.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	text, err := json.Marshal(metadata)
	if err != nil {
		return err
	}
	a, v, r, err := s.run(ctx, t.service, func(v version) request {
		q := t.query(v == v1, as)
		for key, value := range map[string]string{
			"weight": "1", "enabled": "true", "healthy": "true", "ephemeral": "true", "metadata": string(text),
		} {
			q.Set(key, value)
		}
		return request{method: http.MethodPost, path: clientPath(v), query: q}
	})
	if err != nil {
		return err
	}
	if _, ok := a.data(v); !ok {
		return s.refusal(r, a)
	}
	return nil
}

// beat renews the instance. It returns false if the server does not hold it.
// The heartbeat is a light one, which only names the instance; a full one would
// register an instance that does not exist. With v1 the instance is read first,
// because rnacos registers on a light heartbeat too, without the instance's
// other data.
func (s *server) beat(ctx context.Context, t *target, as naming) (bool, error) {
	has, err := s.ready(ctx, t.service)
	if err == nil && has == v1 {
		var found bool
		if _, found, err = s.detail(ctx, t, as); err == nil && !found {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	a, v, r, err := s.run(ctx, t.service, func(v version) request {
		q := t.query(v != v3, as) // the call of v2 has no parameter for the group
		if v == v3 {
			q.Set("heartBeat", "true")
			return request{method: http.MethodPost, path: clientPath(v3), query: q}
		}
		return request{method: http.MethodPut, path: instancePath(v) + "/beat", query: q}
	})
	switch {
	case err != nil:
		return false, err
	case v == v3:
		return s.done(a, v, r, nil)
	}
	said, ok := a.result()
	switch {
	case a.code != http.StatusOK || !ok:
		return false, s.refusal(r, a)
	case *said.Code == beatNobody:
		return false, nil
	case *said.Code != beatTaken && *said.Code != http.StatusOK && *said.Code != 0:
		return false, s.refusal(r, a)
	}
	return true, nil
}
