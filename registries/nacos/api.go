package nacos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// version is a version of Nacos' HTTP API.
type version int

const (
	v1 version = 1 // Nacos 1, and 2 up to 2.1; rnacos
	v2 version = 2 // Nacos 2 from 2.2 on
	v3 version = 3 // Nacos 3
)

func (v version) String() string { return "v" + strconv.Itoa(int(v)) }

// service is the full name of a service.
type service struct{ namespace, group, name string }

func (s service) grouped() string { return s.group + "@@" + s.name }

// query returns the parameters that name the service. If grouped, the service's
// name includes the group, as v1 and the PATCH of v2 expect it.
func (s service) query(grouped bool) url.Values {
	name := s.name
	if grouped {
		name = s.grouped()
	}
	return url.Values{"namespaceId": {s.namespace}, "groupName": {s.group}, "serviceName": {name}}
}

var errNotNacos = errors.New("no Nacos server at this path: LASTCALL_NACOS_URLS usually end in /nacos (status 404)")

var errNoList = errors.New("it holds no list of instances")

// listPath returns the path of the list that clients get.
func listPath(v version) string {
	switch v {
	case v3:
		return "/v3/client/ns/instance/list"
	case v2:
		return "/v2/ns/instance/list"
	default:
		return "/v1/ns/instance/list"
	}
}

// instancePath returns the path of calls about one instance.
func instancePath(v version) string {
	switch v {
	case v3:
		return "/v3/admin/ns/instance"
	case v2:
		return "/v2/ns/instance"
	default:
		return "/v1/ns/instance"
	}
}

func (s *server) known() (version, answered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.marks
}

// run sends a request in the version of the server's API. If the server turns
// out not to have that version any more, for example after an upgrade, run
// determines the version again, once.
func (s *server) run(ctx context.Context, of service, build func(version) request) (answer, version, request, error) {
	for again := false; ; again = true {
		v, err := s.ready(ctx, of)
		if err != nil {
			return answer{}, 0, request{}, err
		}
		r := build(v)
		a, err := s.call(ctx, r)
		if err != nil {
			return answer{}, v, r, err
		}
		// With v1, a missing path and a missing instance look the same. A
		// server without the list is not a server of v1.
		gone := a.absent() && (v != v1 || a.code == http.StatusGone || r.path == listPath(v1))
		if !gone || again {
			return a, v, r, nil
		}
		s.setVersion(0)
	}
}

// list visits the instances that clients get. If everything is set, v3 also
// lists those that clients do not get. A service that does not exist has no
// instances.
func (s *server) list(ctx context.Context, of service, everything bool, visit func(host)) (listing, error) {
	var l listing
	var strange error
	a, v, r, err := s.run(ctx, of, func(v version) request {
		q := of.query(v == v1)
		q.Set("healthyOnly", "false")
		path := listPath(v)
		if everything && v == v3 {
			path = instancePath(v3) + "/list"
		}
		return request{http.MethodGet, path, q, func(body io.Reader) error {
			l, strange = scan(body, visit)
			return broken(strange)
		}}
	})
	switch {
	case err != nil:
		return l, err
	case a.code != http.StatusOK && v != v1 && a.notFound(v), isNotFound(l.code):
		return l, nil
	case a.code != http.StatusOK:
		return l, s.refusal(r, a)
	case strange == nil && l.code != 0:
		strange = fmt.Errorf("code %d: %s", l.code, s.excerpt([]byte(l.message)))
	case strange == nil && !l.found:
		strange = errNoList
	}
	if strange != nil {
		return l, fmt.Errorf("unexpected answer, which is not Nacos' (%v): %w", r, strange)
	}
	return l, nil
}

// detail returns the target's instance as the server holds it, enabled or not.
func (s *server) detail(ctx context.Context, t *target, as naming) (host, bool, error) {
	a, v, r, err := s.run(ctx, t.service, func(v version) request {
		return request{method: http.MethodGet, path: instancePath(v), query: t.query(v == v1, as)}
	})
	var h host
	switch {
	case err != nil:
		return h, false, err
	case a.code != http.StatusOK && a.notFound(v):
		return h, false, nil
	}
	data, ok := a.data(v)
	if !ok {
		if a.notFound(v) {
			return h, false, nil // an error code in an answer with status 200
		}
		return h, false, s.refusal(r, a)
	}
	if err := json.Unmarshal(data, &h); err != nil || h.Port != t.port {
		return h, false, fmt.Errorf("unexpected answer, which is not Nacos' (%v)", r)
	}
	return h, true, nil
}

// setEnabled enables or disables an instance and keeps its weight. It reports
// whether the instance exists.
func (s *server) setEnabled(ctx context.Context, t *target, as naming, h host, enabled bool) (bool, error) {
	change := func(method, path string) func(version) request {
		return func(v version) request {
			q := t.query(v != v3, as)
			q.Set("enabled", strconv.FormatBool(enabled))
			q.Set("weight", strconv.FormatFloat(h.Weight, 'f', -1, 64))
			if v == v3 {
				return request{method: http.MethodPut, path: instancePath(v) + "/partial", query: q}
			}
			if v == v2 {
				q.Set("metadata", "") // it is required, and changes nothing
			}
			return request{method: method, path: instancePath(v) + path, query: q}
		}
	}
	a, v, r, err := s.run(ctx, t.service, change(http.MethodPatch, ""))
	if err == nil && v == v1 && a.code == http.StatusMethodNotAllowed {
		a, v, r, err = s.replace(ctx, t, as, h, enabled)
	}
	return s.done(a, v, r, err)
}

// replace writes the whole instance, for servers before 1.1 that lack PATCH.
func (s *server) replace(ctx context.Context, t *target, as naming, h host, enabled bool) (answer, version, request, error) {
	metadata, err := json.Marshal(h.Metadata)
	if err != nil {
		return answer{}, v1, request{}, err
	}
	return s.run(ctx, t.service, func(v version) request {
		q := t.query(v == v1, as)
		q.Set("enabled", strconv.FormatBool(enabled))
		q.Set("enable", strconv.FormatBool(enabled)) // the name in 1.0
		q.Set("weight", strconv.FormatFloat(h.Weight, 'f', -1, 64))
		q.Set("metadata", string(metadata))
		return request{method: http.MethodPut, path: instancePath(v), query: q}
	})
}

// done evaluates the answer to a change.
func (s *server) done(a answer, v version, r request, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	if _, ok := a.data(v); ok {
		return true, nil
	}
	if a.notFound(v) {
		return false, nil
	}
	return false, s.refusal(r, a)
}

// remove deletes an instance that heartbeats keep alive, or that is persistent.
// An instance of a gRPC connection stays, although the server answers ok.
func (s *server) remove(ctx context.Context, t *target, as naming, ephemeral bool) error {
	a, v, r, err := s.run(ctx, t.service, func(v version) request {
		q := t.query(v == v1, as)
		q.Set("ephemeral", strconv.FormatBool(ephemeral))
		return request{method: http.MethodDelete, path: instancePath(v), query: q}
	})
	_, err = s.done(a, v, r, err)
	return err
}
