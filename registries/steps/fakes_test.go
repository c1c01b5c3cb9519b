package steps

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/settings"
)

// preset returns a preset's registry, with env as its environment.
func preset(t *testing.T, name string, pod drain.Pod, env map[string]string) *Registry {
	t.Helper()
	r, err := newFromPreset(t, name, pod, env)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newFromPreset(t *testing.T, name string, pod drain.Pod, env map[string]string) (*Registry, error) {
	t.Helper()
	for variable, value := range env {
		t.Setenv(variable, value)
	}
	presets := Presets(all)
	i := slices.IndexFunc(presets, func(p *Preset) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("there is no preset %s", name)
	}
	if err := settings.Read(presets[i].Settings); err != nil {
		return nil, err
	}
	a, err := presets[i].New(pod)
	if err != nil {
		return nil, err
	}
	return a.Registry.(*Registry), nil
}

// fakeElasticsearch is a node that follows the rules of the shutdown API: a
// shutdown stays until it is deleted.
type fakeElasticsearch struct {
	mu                sync.Mutex
	started, shutdown int64
	kind, status      string
}

func (f *fakeElasticsearch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer let-me-in":
		http.Error(w, `{"error":"missing authentication credentials"}`, http.StatusUnauthorized)
	case r.URL.Path == "/_nodes/_local/jvm":
		fmt.Fprintf(w, `{"_nodes":{"total":1},"cluster_name":"c","nodes":{"PQKHA4xCQd2xErO2fUK-hg":{"name":"es-0","jvm":{"start_time_in_millis":%d}}}}`, f.started)
	case r.URL.Path != "/_nodes/PQKHA4xCQd2xErO2fUK-hg/shutdown":
		http.NotFound(w, r)
	case r.Method == http.MethodPut:
		var in struct{ Type, Reason string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Reason == "" {
			http.Error(w, `{"error":"reason is required"}`, http.StatusBadRequest)
			return
		}
		f.kind, f.status = in.Type, "IN_PROGRESS"
		if f.shutdown == 0 {
			f.shutdown = time.Now().UnixMilli()
		}
		io.WriteString(w, `{"acknowledged":true}`)
	case f.shutdown == 0:
		http.Error(w, `{"error":{"type":"resource_not_found_exception"}}`, http.StatusNotFound)
	case r.Method == http.MethodDelete:
		f.shutdown = 0
		io.WriteString(w, `{"acknowledged":true}`)
	default:
		fmt.Fprintf(w, `{"nodes":[{"node_id":"PQKHA4xCQd2xErO2fUK-hg","type":%q,"reason":"x","shutdown_startedmillis":%d,"status":%q}]}`, strings.ToUpper(f.kind), f.shutdown, f.status)
	}
}

func (f *fakeElasticsearch) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func TestElasticsearch(t *testing.T) {
	es := &fakeElasticsearch{started: time.Now().UnixMilli() - 1000}
	env := map[string]string{"LASTCALL_ELASTICSEARCH_URL": serve(t, es.ServeHTTP), "LASTCALL_ELASTICSEARCH_TOKEN_FILE": secretFile(t, "let-me-in")}
	r := preset(t, "elasticsearch", drain.Pod{}, env)
	if isWithdrawn(t, r) {
		t.Fatal("withdrawn before Withdraw")
	}
	do(t, "Withdraw", r.Withdraw)
	if isWithdrawn(t, r) || es.kind != "restart" {
		t.Errorf("withdrawn while in progress, by %q", es.kind)
	}
	es.set(func() { es.status = "COMPLETE" })
	if !isWithdrawn(t, r) {
		t.Error("not withdrawn when complete")
	}
	// The sidecar was restarted: the shutdown is newer than the node's process.
	if found, err := preset(t, "elasticsearch", drain.Pod{}, env).Find(within(t)); err != nil || es.shutdown == 0 {
		t.Errorf("Find undid a shutdown of this process: %q, %v", found, err)
	}
	// The node was restarted.
	es.set(func() { es.started = es.shutdown + 5000 })
	if found, err := preset(t, "elasticsearch", drain.Pod{}, env).Find(within(t)); err != nil || es.shutdown != 0 {
		t.Errorf("Find left the earlier process' shutdown: %q, %v", found, err)
	}
	do(t, "Restore of an instance in service", r.Restore)
	do(t, "Withdraw", r.Withdraw)
	es.set(func() { es.status = "STALLED" })
	if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "stalled") {
		t.Errorf("a stalled shutdown: gave up because of %q", r.GaveUp())
	}
	do(t, "Restore", r.Restore)
	if es.shutdown != 0 {
		t.Error("the shutdown is still there after Restore")
	}
}

func TestAPISIX(t *testing.T) {
	var mu sync.Mutex
	nodes := map[string]any{"10.0.0.1:8080": 5, "10.0.0.2:8080": 1}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("X-API-KEY") != "key" {
			http.Error(w, `{"description":"wrong apikey"}`, http.StatusUnauthorized)
			return
		}
		if r.URL.Path != "/apisix/admin/upstreams/web" {
			http.Error(w, `{"message":"Key not found"}`, http.StatusNotFound)
			return
		}
		if r.Method == http.MethodPatch { // merged: null deletes
			var in struct{ Nodes map[string]any }
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			for node, weight := range in.Nodes {
				if nodes[node] = weight; weight == nil {
					delete(nodes, node)
				}
			}
		}
		json.NewEncoder(w).Encode(map[string]any{"key": "/apisix/upstreams/web", "value": map[string]any{"type": "roundrobin", "nodes": nodes}})
	})
	env := map[string]string{
		"LASTCALL_APISIX_URL": url, "LASTCALL_APISIX_UPSTREAM": "web", "LASTCALL_APISIX_KEY_FILE": secretFile(t, "key"), "LASTCALL_APISIX_WEIGHT": "5",
	}
	pod := drain.Pod{IP: "10.0.0.1", AppPort: 8080}
	r := preset(t, "apisix", pod, env)
	if found, err := r.Find(within(t)); err != nil || found != "weight=5" || isWithdrawn(t, r) || !isListed(t, r) {
		t.Fatalf("Find: %q, %v", found, err)
	}
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) || isListed(t, r) || fmt.Sprint(nodes["10.0.0.1:8080"]) != "0" || fmt.Sprint(nodes["10.0.0.2:8080"]) != "1" {
		t.Errorf("the upstream's nodes: %v", nodes)
	}
	if found, err := preset(t, "apisix", pod, env).Find(within(t)); err != nil || fmt.Sprint(nodes["10.0.0.1:8080"]) != "5" {
		t.Errorf("Find at the next start: %q, %v; %v", found, err, nodes)
	}
	do(t, "Deregister", r.Deregister)
	if _, there := nodes["10.0.0.1:8080"]; there {
		t.Error("Deregister has left the node")
	}
}

// fakeVault is a node that follows the rules of Vault: health answers anybody,
// with the state as its code; a standby forwards to the active node; and
// stepping down needs a token.
type fakeVault struct {
	mu     sync.Mutex
	active bool
	nodes  int
	downs  int
}

func (f *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.URL.Path == "/v1/sys/health" && f.active:
		io.WriteString(w, `{"initialized":true,"sealed":false,"standby":false}`)
	case r.URL.Path == "/v1/sys/health":
		w.WriteHeader(http.StatusTooManyRequests)
		io.WriteString(w, `{"initialized":true,"sealed":false,"standby":true}`)
	case r.Header.Get("X-Vault-Token") != "s.root":
		http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
	case r.URL.Path == "/v1/sys/ha-status":
		fmt.Fprintf(w, `{"data":{"nodes":[{}%s]}}`, strings.Repeat(",{}", f.nodes-1))
	case r.URL.Path == "/v1/sys/step-down" && r.Method == http.MethodPut:
		f.downs++
		f.active = false
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

func TestVaultRules(t *testing.T) {
	vault := &fakeVault{nodes: 3}
	env := map[string]string{"LASTCALL_VAULT_URL": serve(t, vault.ServeHTTP), "LASTCALL_VAULT_TOKEN_FILE": secretFile(t, "s.root")}
	r := preset(t, "vault", drain.Pod{}, env)
	do(t, "Withdraw of a standby", r.Withdraw)
	if vault.downs != 0 || !isWithdrawn(t, r) {
		t.Errorf("a standby: %d steps down, of the active node", vault.downs)
	}
	vault.active = true
	if isWithdrawn(t, r) {
		t.Error("an active node counts as withdrawn")
	}
	do(t, "Withdraw", r.Withdraw)
	if vault.downs != 1 || !isWithdrawn(t, r) {
		t.Errorf("%d steps down", vault.downs)
	}
	vault.active, vault.nodes = true, 1
	do(t, "Withdraw of the only node", r.Withdraw)
	if vault.downs != 1 || !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "no standby") {
		t.Errorf("the only node: gave up because of %q", r.GaveUp())
	}
}

func secretFile(t *testing.T, secret string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
