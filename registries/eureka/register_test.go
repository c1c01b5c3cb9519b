package eureka

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// fakeServer is a Eureka server without a cache. It follows the real server's
// rules for overrides (AbstractInstanceRegistry and the
// InstanceStatusOverrideRules in eureka-core).
type fakeServer struct {
	mu        sync.Mutex
	instances map[string]map[string]any // by id
	overrides map[string]string         // outlive the instances
	requests  []string
}

func newFakeServer(t *testing.T) (*fakeServer, string) {
	f := &fakeServer{instances: map[string]map[string]any{}, overrides: map[string]string{}}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, s.URL + "/eureka"
}

// effective returns the status that results from a registration or a heartbeat.
func (f *fakeServer) effective(id, said, before string) string {
	switch {
	case said != up && said != outOfService:
		return said
	case f.overrides[id] != "":
		return f.overrides[id]
	case before == up || before == outOfService:
		return before
	}
	return said
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/eureka/"), "/")
	for n := range path {
		path[n], _ = url.PathUnescape(path[n])
	}
	f.requests = append(f.requests, r.Method+" "+strings.Join(path, "/"))
	var id string
	if len(path) > 2 {
		id = path[2]
	}
	i := f.instances[id]
	switch {
	case r.Method == http.MethodPost && len(path) == 2:
		f.register(w, r)
	case r.Method == http.MethodGet && len(path) < 3:
		f.list(w, r, path)
	case i == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		if err := json.NewEncoder(w).Encode(map[string]any{"instance": i}); err != nil {
			panic(err) // a mistake in the fake
		}
	case len(path) == 4 && r.Method == http.MethodPut:
		if status := r.FormValue("value"); i["status"] != status {
			f.overrides[id], i["overriddenStatus"], i["status"], i["actionType"] = status, status, status, "MODIFIED"
		}
	case len(path) == 4 && r.Method == http.MethodDelete:
		if f.overrides[id] != "" {
			delete(f.overrides, id)
			i["overriddenStatus"], i["status"], i["actionType"] = "UNKNOWN", "UNKNOWN", "MODIFIED"
			if status := r.FormValue("value"); status != "" {
				i["status"] = status
			}
		}
	case r.Method == http.MethodPut && i["status"] == "UNKNOWN":
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPut:
		i["status"] = f.effective(id, fmt.Sprint(i["own"]), fmt.Sprint(i["status"]))
	case r.Method == http.MethodDelete:
		delete(f.instances, id)
		delete(f.overrides, id)
	}
}

func (f *fakeServer) register(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Instance map[string]any `json:"instance"`
	}
	all, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(all, &body)
	}
	i := body.Instance
	id, _ := i["instanceId"].(string)
	before := ""
	if had := f.instances[id]; had != nil {
		before = fmt.Sprint(had["status"])
	}
	switch {
	case err != nil, r.Header.Get("Content-Type") != asJSON, id == "", i["hostName"] == "", i["ipAddr"] == "", i["app"] == "", i["dataCenterInfo"] == nil:
		w.WriteHeader(http.StatusBadRequest) // as ApplicationResource.addInstance
		return
	}
	if f.overrides[id] != "" {
		i["overriddenStatus"] = f.overrides[id]
	}
	i["own"] = i["status"]
	i["status"], i["actionType"] = f.effective(id, fmt.Sprint(i["own"]), before), "ADDED"
	f.instances[id] = i
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeServer) list(w http.ResponseWriter, r *http.Request, path []string) {
	if r.Header.Get("Accept") == asXML {
		text := ""
		for id, i := range f.instances {
			text += fmt.Sprintf("<instance><instanceId>%s</instanceId><app>%v</app><ipAddr>%v</ipAddr><status>%v</status><port enabled=\"true\">8080</port></instance>", id, i["app"], i["ipAddr"], i["status"])
		}
		root := "<application>%s</application>"
		if len(path) == 1 || path[1] == "delta" {
			root = "<applications><application>%s</application></applications>"
		}
		_, _ = fmt.Fprintf(w, root, text)
		return
	}
	all := []any{}
	for _, i := range f.instances {
		all = append(all, i)
	}
	if len(path) == 2 && path[1] != "delta" {
		if len(all) == 0 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"application": map[string]any{"name": path[1], "instance": all}}); err != nil {
			panic(err) // a mistake in the fake
		}
		return
	}
	if err := json.NewEncoder(w).Encode(map[string]any{"applications": map[string]any{"application": []any{map[string]any{"name": "ORDERS", "instance": all}}}}); err != nil {
		panic(err) // a mistake in the fake
	}
}

// held returns what the server holds of the one instance. status is empty if
// there is none.
func (f *fakeServer) held() (status, ip string, requests []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.instances {
		status, ip = fmt.Sprint(i["status"]), fmt.Sprint(i["ipAddr"])
	}
	requests, f.requests = f.requests, nil
	return status, ip, requests
}

// aRegistrar returns a plug-in that registers orders at two servers. The second
// server replicates nothing.
func aRegistrar(t *testing.T, ip string, urls ...string) *Registry {
	t.Helper()
	r, err := New(Config{URLs: urls, Status: outOfService}, drain.Pod{
		Name: "orders-0", IP: ip, AppPort: 8080,
		Service: &drain.Service{Name: "orders", Metadata: map[string]string{"version": "2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRegister(t *testing.T) {
	f, at := newFakeServer(t)
	r := aRegistrar(t, "10.0.0.7", at)
	say := func(ready bool, want string) {
		t.Helper()
		if err := r.Register(t.Context(), ready); err != nil {
			t.Fatal(err)
		}
		if status, _, _ := f.held(); status != want {
			t.Fatalf("status %q, want %q", status, want)
		}
	}
	say(false, "")
	say(true, up)
	if i := f.instances["orders-0:orders:8080"]; i == nil || fmt.Sprint(i["metadata"]) != "map[version:2]" {
		t.Fatalf("registered as %v", i)
	}
	if err := r.Register(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, _, requests := f.held(); len(requests) != 1 || requests[0] != "PUT apps/ORDERS/orders-0:orders:8080" {
		t.Errorf("a renewal takes %q", requests)
	}
	say(false, down)
	say(false, down)
	say(true, up)
	if err := r.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	say(true, outOfService) // the drain was taken back: Restore comes next
	if err := r.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	say(true, up)
}

// fakeHarness runs the suite against fake servers. TestRegistrarSuite runs it
// against real ones.
type fakeHarness struct {
	*fakeServer
	url string
}

func (h fakeHarness) Listed(*testing.T) bool { status, _, _ := h.held(); return status == up }
func (h fakeHarness) Settle(*testing.T)      {}
func (h fakeHarness) Known(*testing.T) bool  { status, _, _ := h.held(); return status != "" }
func (h fakeHarness) Lose(*testing.T)        { h.mu.Lock(); clear(h.instances); h.mu.Unlock() }
func (h fakeHarness) Registry(t *testing.T) drain.Registry {
	return aRegistrar(t, "10.0.0.7", h.url)
}
func (h fakeHarness) Next(t *testing.T) drain.Registry { return aRegistrar(t, "10.0.0.8", h.url) }

func TestRegistrarSuiteWithAFake(t *testing.T) {
	t.Parallel()
	registrytest.RunRegistrar(t, func(t *testing.T) registrytest.RegistrarHarness {
		f, at := newFakeServer(t)
		return fakeHarness{f, at}
	})
}
