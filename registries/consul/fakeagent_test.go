package consul

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
)

// fakeConsul is an agent and a catalog in one, with the rules that matter for
// registration; TestRegistrarSuite runs against the real ones. An agent's check
// of a service stays when the service is registered again.
type fakeConsul struct {
	mu       sync.Mutex
	changed  chan struct{}
	index    int
	agent    map[string]*api.AgentService
	checks   map[string]*api.AgentCheck // the agent's
	nodes    map[string]*api.Node       // of the catalog
	catalog  map[string]*api.AgentService
	inAll    map[string]*api.HealthCheck
	requests []string
}

const agentNode = "node-1"

func newFakeConsul(t *testing.T) (*fakeConsul, string) {
	f := &fakeConsul{
		changed: make(chan struct{}), index: 1,
		agent: map[string]*api.AgentService{}, checks: map[string]*api.AgentCheck{},
		nodes: map[string]*api.Node{}, catalog: map[string]*api.AgentService{}, inAll: map[string]*api.HealthCheck{},
	}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, s.URL
}

var idInFilter = regexp.MustCompile(`(?:ID|Service\.ID|ServiceID) == "([^"]*)"`)

func wants(r *http.Request, id string) bool {
	m := idInFilter.FindStringSubmatch(r.FormValue("filter"))
	return m == nil || m[1] == id && !strings.Contains(r.FormValue("filter"), "Destination")
}

func (f *fakeConsul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if !f.wait(r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+path)
	w.Header().Set("X-Consul-Index", strconv.Itoa(f.index))
	if r.Method == http.MethodPut {
		if code := f.putLocked(r, path); code != http.StatusOK {
			w.WriteHeader(code)
			return
		}
		f.index++
		close(f.changed)
		f.changed = make(chan struct{})
		_, _ = w.Write([]byte("true"))
		return
	}
	if err := json.NewEncoder(w).Encode(f.getLocked(r, path)); err != nil {
		panic(err) // a mistake in the fake
	}
}

// wait blocks as an open call does.
func (f *fakeConsul) wait(r *http.Request) bool {
	for {
		f.mu.Lock()
		index, changed := f.index, f.changed
		f.mu.Unlock()
		if r.FormValue("index") != strconv.Itoa(index) {
			return true
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return false
		}
	}
}

func (f *fakeConsul) getLocked(r *http.Request, path string) any {
	switch {
	case path == "agent/services":
		all := map[string]*api.AgentService{}
		for id, s := range f.agent {
			if wants(r, id) {
				all[id] = s
			}
		}
		return all
	case path == "agent/checks":
		all := map[string]*api.AgentCheck{}
		for id, c := range f.checks {
			if wants(r, c.ServiceID) {
				all[id] = c
			}
		}
		return all
	case path == "catalog/services":
		return map[string][]string{}
	case strings.HasPrefix(path, "health/connect/"):
		return []any{}
	}
	return f.healthLocked(r, strings.TrimPrefix(path, "health/service/"))
}

func (f *fakeConsul) healthLocked(r *http.Request, name string) []*api.ServiceEntry {
	entries := []*api.ServiceEntry{}
	for id, s := range f.agent {
		if s.Service == name && wants(r, id) {
			e := &api.ServiceEntry{Node: &api.Node{Node: agentNode, Address: "10.0.0.1"}, Service: s}
			for _, c := range f.checks {
				if c.ServiceID == id {
					e.Checks = append(e.Checks, &api.HealthCheck{CheckID: c.CheckID, ServiceID: id, Status: c.Status, Notes: c.Notes, Output: c.Output})
				}
			}
			entries = append(entries, e)
		}
	}
	for node, s := range f.catalog {
		if s.Service == name && wants(r, s.ID) {
			e := &api.ServiceEntry{Node: f.nodes[node], Service: s}
			for _, c := range f.inAll {
				if c.Node == node {
					e.Checks = append(e.Checks, c)
				}
			}
			entries = append(entries, e)
		}
	}
	return entries
}

func (f *fakeConsul) putLocked(r *http.Request, path string) int {
	last := path[strings.LastIndex(path, "/")+1:]
	read := func(v any) { _ = json.NewDecoder(r.Body).Decode(v) }
	maintenance := api.ServiceMaintPrefix + last
	switch {
	case path == "agent/service/register":
		var s api.AgentServiceRegistration
		read(&s)
		f.agent[s.ID] = &api.AgentService{ID: s.ID, Service: s.Name, Address: s.Address, Port: s.Port, Meta: s.Meta, TaggedAddresses: s.TaggedAddresses}
		f.checks[s.Check.CheckID] = &api.AgentCheck{Node: agentNode, CheckID: s.Check.CheckID, ServiceID: s.ID, Status: s.Check.Status}
	case strings.HasPrefix(path, "agent/check/update/"):
		c := f.checks[strings.TrimPrefix(path, "agent/check/update/")]
		if c == nil {
			return http.StatusNotFound
		}
		var said struct{ Status, Output string }
		read(&said)
		c.Status, c.Output = said.Status, said.Output
	case strings.HasPrefix(path, "agent/service/maintenance/"):
		if f.agent[last] == nil {
			return http.StatusNotFound
		}
		if r.FormValue("enable") == "true" {
			f.checks[maintenance] = &api.AgentCheck{Node: agentNode, CheckID: maintenance, ServiceID: last, Status: api.HealthCritical, Notes: r.FormValue("reason")}
		} else {
			delete(f.checks, maintenance)
		}
	case strings.HasPrefix(path, "agent/service/deregister/"):
		if f.agent[last] == nil {
			return http.StatusNotFound
		}
		f.loseLocked()
	case path == "catalog/register":
		f.catalogLocked(read)
	case path == "catalog/deregister":
		var d api.CatalogDeregistration
		read(&d)
		if d.CheckID != "" {
			delete(f.inAll, d.CheckID)
		} else {
			f.loseLocked()
		}
	case path == "txn":
		return http.StatusInternalServerError // lookFurther fails in the same way
	default:
		return http.StatusNotFound
	}
	return http.StatusOK
}

func (f *fakeConsul) catalogLocked(read func(any)) {
	var c api.CatalogRegistration
	read(&c)
	if !c.SkipNodeUpdate {
		f.nodes[c.Node] = &api.Node{Node: c.Node, Address: c.Address, Meta: c.NodeMeta}
	}
	if c.Service != nil {
		f.catalog[c.Node] = c.Service
	}
	if c.Check != nil {
		f.inAll[c.Check.CheckID] = &api.HealthCheck{Node: c.Node, CheckID: c.Check.CheckID, ServiceID: c.Check.ServiceID, Status: c.Check.Status, Notes: c.Check.Notes, Output: c.Check.Output}
	}
}

func (f *fakeConsul) loseLocked() {
	clear(f.agent)
	clear(f.checks)
	clear(f.nodes)
	clear(f.catalog)
	clear(f.inAll)
}
