package steps

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"lastcall/drain"
)

// fakePD is the part of a PD member that the preset uses, with PD's own rules:
// one scheduler evicts the leaders of any number of stores; adding a store that
// it already has is an error 500; and an entry that does not exist cannot be
// deleted.
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

	// The pod is back, with a sidecar that remembers nothing. Meanwhile another
	// store is being drained.
	pd.evicted[3] = true
	if found, err := at("tikv-1").Find(within(t)); err != nil || !strings.Contains(found, "put back") {
		t.Fatalf("Find of the next pod: %q, %v", found, err)
	}
	if pd.evicted[2] || !pd.evicted[3] {
		t.Errorf("evicted after the start: %v, want 3 only", pd.evicted)
	}
	do(t, "Restore", r.Restore)
	do(t, "Restore of an instance in service", r.Restore)

	// If PD does not know the pod, there is nothing to withdraw: tikv-11 is not
	// tikv-1.
	other := at("tikv-11")
	do(t, "Withdraw of an unknown store", other.Withdraw)
	if found, err := other.Find(within(t)); err == nil || !isWithdrawn(t, other) {
		t.Errorf("an unknown store: %q", found)
	}

	// A single store cannot be drained, and the drain does not wait for it.
	pd.leaders, pd.evicted = map[int]int{1: 3}, map[int]bool{}
	alone := at("tikv-0")
	do(t, "Withdraw of the only store", alone.Withdraw)
	if !isWithdrawn(t, alone) || !strings.Contains(alone.GaveUp(), "no other store") || pd.evicted[1] {
		t.Errorf("the only store: gave up because of %q", alone.GaveUp())
	}
}
