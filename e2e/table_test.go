package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lastcall/e2e/load"
)

// table holds what each scenario came to.
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

// add adds a scenario's result to the table at the end.
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

// ranOn notes what the scenarios run on.
func (t *table) ranOn(where string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.where = where
}

// markdown is the table, or nothing if there was no scenario.
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
		for _, v := range []variant{native, classic} {
			r, ok := of[v]
			if !ok {
				continue
			}
			fmt.Fprintf(&out, "| %s | %s | %d | %d | %s |%s%s\n", scenario, v, r.requests, r.failed, seconds(r.longest), besides(of, bare), besides(of, sleep30))
		}
	}
	return out.String() + "\n" + t.where + "\n"
}

// besides is what a variant without Lastcall came to: two cells.
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

// markers are those between which a text is written.
func markers(name string) (begin, end string) {
	return "<!-- make e2e writes the " + name + " from here -->\n", "<!-- the " + name + " to here -->\n"
}

var errNoMarkers = errors.New("lacks the markers between which this is written")

func writeBetweenMarkers(file, name, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := markers(name)
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s %w: %s", file, errNoMarkers, name)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}

func TestWriteBetweenMarkers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "e2e.md")
	begin, end := markers("scenarios")
	if err := os.WriteFile(file, []byte("# Title\n"+begin+"old\n"+end+"The end.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeBetweenMarkers(file, "scenarios", "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := "# Title\n" + begin + "\nnew\n\n" + end + "The end.\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if err := writeBetweenMarkers(file, "soak", "new\n"); !errors.Is(err, errNoMarkers) {
		t.Errorf("%v, want %v", err, errNoMarkers)
	}
}
