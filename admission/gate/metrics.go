package gate

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Metrics counts what a gate does. It is safe for concurrent use.
type Metrics struct {
	mu       sync.Mutex // guards everything that follows
	asks     map[[2]string]int
	releases map[string]int
	done     map[Verb]int
	waits    map[string]time.Time
	holds    map[string]bool
}

func (m *Metrics) decided(v Verb, d *Decision) {
	answer := "allowed"
	if !d.Allow {
		answer = "denied"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asks == nil {
		m.asks = map[[2]string]int{}
	}
	m.asks[[2]string{string(v), answer}]++
}

// released counts a release. It groups the reasons into a few kinds.
func (m *Metrics) released(why string) {
	kind := "timeout"
	switch {
	case why == "drained":
		kind = "drained"
	case strings.HasPrefix(why, "drained"):
		kind = "not_withdrawn"
	case strings.HasPrefix(why, "the sidecar"):
		kind = "no_sidecar"
	case strings.HasPrefix(why, "the label"):
		kind = "no_label"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.releases == nil {
		m.releases = map[string]int{}
	}
	m.releases[kind]++
}

func (m *Metrics) carriedOut(v Verb) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done == nil {
		m.done = map[Verb]int{}
	}
	m.done[v]++
}

func (m *Metrics) waiting(key string, r *Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r == nil {
		delete(m.waits, key)
		delete(m.holds, key)
		return
	}
	if m.waits == nil {
		m.waits = map[string]time.Time{}
	}
	m.waits[key] = r.At
}

func (m *Metrics) holding(key string, over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !over {
		delete(m.holds, key)
		return
	}
	if m.holds == nil {
		m.holds = map[string]bool{}
	}
	m.holds[key] = true
}

// Write writes the metrics in Prometheus' text format.
func (m *Metrics) Write(w io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	family := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	family("lastcall_gate_requests_total", "counter", "Deletions and evictions that the API server asked about.")
	for _, v := range []Verb{Delete, Evict} {
		for _, answer := range []string{"allowed", "denied"} {
			fmt.Fprintf(w, "lastcall_gate_requests_total{verb=%q,answer=%q} %d\n", v, answer, m.asks[[2]string{string(v), answer}])
		}
	}
	family("lastcall_gate_released_total", "counter", "Pods that this replica let go, by the reason.")
	for _, kind := range []string{"drained", "not_withdrawn", "timeout", "no_sidecar", "no_label"} {
		fmt.Fprintf(w, "lastcall_gate_released_total{reason=%q} %d\n", kind, m.releases[kind])
	}
	family("lastcall_gate_carried_out_total", "counter", "Deletions and evictions that this replica carried out.")
	for _, v := range []Verb{Delete, Evict} {
		fmt.Fprintf(w, "lastcall_gate_carried_out_total{verb=%q} %d\n", v, m.done[v])
	}
	family("lastcall_gate_waiting_pods", "gauge", "Pods that are held until they are drained.")
	fmt.Fprintf(w, "lastcall_gate_waiting_pods %d\n", len(m.waits))
	family("lastcall_gate_overdue_pods", "gauge", "Pods that are held for longer than their annotation lastcall/gate-timeout.")
	fmt.Fprintf(w, "lastcall_gate_overdue_pods %d\n", len(m.holds))
	family("lastcall_gate_longest_wait_seconds", "gauge", "How long the pod with the oldest request has been held.")
	longest := 0.0
	if len(m.waits) > 0 {
		longest = time.Since(slices.MinFunc(slices.Collect(maps.Values(m.waits)), time.Time.Compare)).Seconds()
	}
	fmt.Fprintf(w, "lastcall_gate_longest_wait_seconds %g\n", longest)
}
