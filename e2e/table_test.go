package e2e

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"lastcall/e2e/load"
)

// table holds the results of the scenarios. It is safe for concurrent use.
type table struct {
	mu        sync.Mutex
	scenarios []string // in the order of their first result
	results   map[string]map[variant]result
	where     string
}

type result struct {
	requests, failed int64
	longest          time.Duration // of the pods' terminations; 0: none was deleted
}

// add adds a scenario's result to the table.
func (t *table) add(scenario string, v variant, counts load.Counts, longest time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.results == nil {
		t.results = map[string]map[variant]result{}
	}
	if t.results[scenario] == nil {
		t.scenarios = append(t.scenarios, scenario)
		t.results[scenario] = map[variant]result{}
	}
	t.results[scenario][v] = result{requests: counts.Requests, failed: counts.Failed, longest: longest}
}

// ranOn sets the description of the machine and the cluster.
func (t *table) ranOn(where string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.where = where
}

// markdown returns the table as Markdown, or an empty string if no scenario has run.
func (t *table) markdown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.scenarios) == 0 {
		return ""
	}
	var out strings.Builder
	out.WriteString("| scenario | Lastcall as | requests | failed | longest termination | without a sidecar: failed | longest | with `sleep 30`: failed | longest |\n")
	out.WriteString("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, scenario := range t.scenarios {
		of := t.results[scenario]
		for _, v := range []variant{native, classic, byPolicy, byWebhook, gated} {
			r, ok := of[v]
			if !ok {
				continue
			}
			fmt.Fprintf(&out, "| %s | %s | %d | %d | %s |%s%s\n", scenario, v, r.requests, r.failed, seconds(r.longest), besides(of, bare), besides(of, sleep30))
		}
	}
	return out.String() + "\n" + t.where + "\n"
}

// besides returns two cells with the result of a variant without Lastcall.
func besides(of map[variant]result, v variant) string {
	r, ok := of[v]
	if !ok {
		return " – | – |"
	}
	return fmt.Sprintf(" %d of %d | %s |", r.failed, r.requests, seconds(r.longest))
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
