package steps

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// fakeRegistry is a registry with a plain HTTP API. A status that is set from
// outside outlives a registration.
type fakeRegistry struct {
	url string

	mu    sync.Mutex
	clock int64
	known map[string]*fakeInstance
}

type fakeInstance struct {
	ID         string `json:"id"`
	Address    string `json:"address"`
	Status     string `json:"status"`
	Registered int64  `json:"registered"`
	ChangedAt  int64  `json:"changed_at"`
}

func startFake(t *testing.T) *fakeRegistry {
	f := &fakeRegistry{known: map[string]*fakeInstance{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /instances", f.locked(func(w http.ResponseWriter, _ *http.Request) {
		all := []*fakeInstance{}
		for _, i := range f.known {
			all = append(all, i)
		}
		json.NewEncoder(w).Encode(map[string]any{"instances": all})
	}))
	mux.HandleFunc("GET /instances/{id}", f.one(func(i *fakeInstance, w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(i)
	}))
	mux.HandleFunc("PUT /instances/{id}", f.one(func(i *fakeInstance, w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(i); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		i.ChangedAt = f.now()
	}))
	mux.HandleFunc("DELETE /instances/{id}", f.one(func(i *fakeInstance, _ http.ResponseWriter, _ *http.Request) {
		delete(f.known, i.ID)
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *fakeRegistry) now() int64 { f.clock++; return f.clock }

func (f *fakeRegistry) locked(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		h(w, r)
	}
}

func (f *fakeRegistry) one(h func(*fakeInstance, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return f.locked(func(w http.ResponseWriter, r *http.Request) {
		i := f.known[r.PathValue("id")]
		if i == nil {
			http.Error(w, `{"error":"not found"}`, http.StatusNotFound)
			return
		}
		h(i, w, r)
	})
}

// fakeApp is an app that is registered in the fake registry.
type fakeApp struct {
	*fakeRegistry
	id, ip string
}

func (a *fakeApp) Register(*testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.known[a.id]
	if i == nil {
		i = &fakeInstance{ID: a.id, Address: a.ip + ":8080", Status: "UP"}
		a.known[a.id] = i
	}
	i.Registered = a.now()
}

func (a *fakeApp) Heartbeat(*testing.T) {}
func (a *fakeApp) Settle(*testing.T)    {}

func (a *fakeApp) Listed(*testing.T) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[a.id] != nil && a.known[a.id].Status == "UP"
}

func (a *fakeApp) Known(*testing.T) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[a.id] != nil
}

func (a *fakeApp) Registry(t *testing.T) drain.Registry {
	return fromYAML(t, drain.Pod{IP: a.ip, AppPort: 8080}, strings.ReplaceAll(`
servers: URL
find:
  - get: /instances
    set:
      id: instances.#(address=="${LASTCALL_POD_IP}:${LASTCALL_APP_PORT}").id
      registered: instances.#(address=="${LASTCALL_POD_IP}:${LASTCALL_APP_PORT}").registered
    absent: [missing]
withdraw:
  - put: /instances/${id}
    body: '{"status":"OUT"}'
    done: [404]
withdrawn:
  - get: /instances/${id}
    when: status == OUT
    done: [404]
restore:
  - put: /instances/${id}
    body: '{"status":"UP"}'
    done: [404]
leftover:
  - get: /instances/${id}
    when: [status == OUT, "changed_at < ${registered}"]
    not_yet: [404]
deregister:
  - delete: /instances/${id}
    done: [404]
`, "URL", a.url))
}

// The suite of all registries runs against a registry that has only a plain
// HTTP API.
func TestSuite(t *testing.T) {
	apps := 0
	fake := startFake(t)
	registrytest.Run(t, func(*testing.T) registrytest.Harness {
		apps++
		return &fakeApp{fake, fmt.Sprintf("orders/%d", apps), fmt.Sprintf("10.0.0.%d", apps)}
	})
}
