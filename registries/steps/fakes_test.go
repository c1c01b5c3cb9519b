package steps

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/settings"
)

// preset makes a preset's registry, with env as its environment.
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

// fakePD is the part of a PD member that the preset uses, with PD's own rules:
// one scheduler evicts the leaders of any number of stores, its store's second
// is an error 500, and what is not there cannot be deleted.
type fakePD struct {
	mu      sync.Mutex
	leaders map[int]int
	evicted map[int]bool
}

func (f *fakePD) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
	store := func(id int) map[string]any {
		return map[string]any{
			"store":  map[string]any{"id": id, "address": fmt.Sprintf("tikv-%d.tikv.ns.svc:20160", id-1), "state_name": "Up"},
			"status": map[string]any{"leader_count": f.leaders[id], "region_count": 9},
		}
	}
	const schedulers = "/pd/api/v1/schedulers"
	switch path := r.URL.Path; {
	case path == "/pd/api/v1/stores":
		var all []any
		for id := 1; id <= len(f.leaders); id++ {
			all = append(all, store(id))
		}
		answer(200, map[string]any{"count": len(all), "stores": all})
	case strings.HasPrefix(path, "/pd/api/v1/store/"):
		id, _ := strconv.Atoi(strings.TrimPrefix(path, "/pd/api/v1/store/"))
		if _, known := f.leaders[id]; !known {
			answer(404, fmt.Sprintf("[PD:core:ErrStoreNotFound]store %d not found", id))
			return
		}
		if n := f.leaders[id]; f.evicted[id] && n > 0 { // leaders leave one by one
			f.leaders[id] = n - 1
			f.leaders[id%len(f.leaders)+1]++
		}
		answer(200, store(id))
	case path == schedulers && r.Method == http.MethodGet:
		all := []string{"balance-leader-scheduler"}
		if len(f.evicted) > 0 {
			all = append(all, "evict-leader-scheduler")
		}
		answer(200, all)
	case path == schedulers && r.Method == http.MethodPost:
		var in struct {
			Name    string  `json:"name"`
			StoreID float64 `json:"store_id"`
		}
		body, _ := io.ReadAll(r.Body)
		switch err := json.Unmarshal(body, &in); {
		case err != nil || in.Name != "evict-leader-scheduler" || in.StoreID == 0:
			answer(400, "missing store id")
		case f.evicted[int(in.StoreID)]:
			answer(500, "[PD:scheduler:ErrSchedulerExisted]scheduler existed")
		default:
			f.evicted[int(in.StoreID)] = true
			answer(200, "The scheduler is created.")
		}
	case strings.HasPrefix(path, schedulers+"/evict-leader-scheduler-") && r.Method == http.MethodDelete:
		id, _ := strconv.Atoi(strings.TrimPrefix(path, schedulers+"/evict-leader-scheduler-"))
		if !f.evicted[id] {
			answer(404, "[PD:scheduler:ErrSchedulerNotFound]scheduler not found")
			return
		}
		delete(f.evicted, id)
		answer(200, "The scheduler is removed.")
	default:
		http.NotFound(w, r)
	}
}

func TestTiKV(t *testing.T) {
	pd := &fakePD{leaders: map[int]int{1: 3, 2: 3, 3: 3}, evicted: map[int]bool{}}
	url := serve(t, pd.ServeHTTP)
	dead := "http://127.0.0.1:1"
	at := func(name string) *Registry {
		return preset(t, "tikv", drain.Pod{Name: name}, map[string]string{"LASTCALL_TIKV_PD_URLS": dead + "," + url})
	}
	r := at("tikv-1")
	if found, err := r.Find(within(t)); err != nil || found != "store=2" {
		t.Fatalf("Find: %q, %v", found, err)
	}
	if isWithdrawn(t, r) {
		t.Fatal("withdrawn with leaders on it")
	}
	do(t, "Withdraw", r.Withdraw)
	do(t, "Withdraw again", r.Withdraw)
	asked := 0
	for !isWithdrawn(t, r) {
		if asked++; asked > 10 {
			t.Fatal("its leaders do not leave")
		}
	}
	if pd.leaders[2] != 0 || !pd.evicted[2] {
		t.Errorf("withdrawn with %d leaders", pd.leaders[2])
	}

	// The pod is back, with a sidecar that knows nothing, and beside it another
	// store is being drained.
	pd.evicted[3] = true
	if found, err := at("tikv-1").Find(within(t)); err != nil || !strings.Contains(found, "put back") {
		t.Fatalf("Find of the next pod: %q, %v", found, err)
	}
	if pd.evicted[2] || !pd.evicted[3] {
		t.Errorf("evicted after the start: %v, want 3 only", pd.evicted)
	}
	do(t, "Restore", r.Restore)
	do(t, "Restore of what is in service", r.Restore)

	// A pod that PD does not know has nothing to be withdrawn: tikv-11 is not tikv-1.
	other := at("tikv-11")
	do(t, "Withdraw of an unknown store", other.Withdraw)
	if found, err := other.Find(within(t)); err == nil || !isWithdrawn(t, other) {
		t.Errorf("an unknown store: %q", found)
	}

	// A store alone cannot be drained, and nobody waits for it.
	pd.leaders, pd.evicted = map[int]int{1: 3}, map[int]bool{}
	alone := at("tikv-0")
	do(t, "Withdraw of the only store", alone.Withdraw)
	if !isWithdrawn(t, alone) || !strings.Contains(alone.GaveUp(), "no other store") || pd.evicted[1] {
		t.Errorf("the only store: gave up because of %q", alone.GaveUp())
	}
}

// fakeElasticsearch is a node with the shutdown API's rules: a shutdown stays
// until it is deleted.
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
	do(t, "Restore of what is in service", r.Restore)
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
	if found, err := r.Find(within(t)); err != nil || found != "weight=5" || isWithdrawn(t, r) {
		t.Fatalf("Find: %q, %v", found, err)
	}
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) || fmt.Sprint(nodes["10.0.0.1:8080"]) != "0" || fmt.Sprint(nodes["10.0.0.2:8080"]) != "1" {
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

// fakeVault is a node with the rules of Vault: health answers anybody and says
// the state by its code, a standby forwards to the active node, and stepping
// down needs a token.
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
