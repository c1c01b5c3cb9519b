package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is one figure.
type row struct {
	part                   string
	what, target, repeated string
	values                 []float64
	unit                   string
	digits                 int
}

type table struct{ rows []row }

// add adds a figure: all values that were measured, of which the median counts.
func (t *table) add(what string, values []float64, unit string, digits int, target, repeated string) {
	t.rows = append(t.rows, row{what: what, values: values, unit: unit, digits: digits, target: target, repeated: repeated})
}

// replace puts rows in the place of a part's earlier ones.
func (t *table) replace(part string, rows table) {
	t.rows = slices.DeleteFunc(t.rows, func(r row) bool { return r.part == part })
	for _, r := range rows.rows {
		r.part = part
		t.rows = append(t.rows, r)
	}
}

// quantile is the value that a share q of values is not above.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (t *table) markdown(b testing.TB) string {
	b.Helper()
	var out strings.Builder
	out.WriteString("| figure | median | 9 of 10 are below | target for the median | of |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range t.rows {
		number := func(v float64) string { return fmt.Sprintf("%.*f %s", r.digits, v, r.unit) }
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s |\n", r.what, number(quantile(r.values, 0.5)), number(quantile(r.values, 0.9)), r.target, r.repeated)
	}
	return out.String() + "\n" + provenance(b)
}

// markers are those between which a text is written.
func markers(name string) (begin, end string) {
	return "<!-- make bench writes the " + name + " from here -->\n", "<!-- the " + name + " to here -->\n"
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
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	begin, end := markers("figures")
	if err := os.WriteFile(file, []byte("# Figures\n"+begin+"old\n"+end+"The end.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what it has written it can write again
		if err := writeBetweenMarkers(file, "figures", "| new |\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if want := "# Figures\n" + begin + "\n| new |\n\n" + end + "The end.\n"; err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	if err := os.WriteFile(file, []byte("# Figures\n"+begin), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeBetweenMarkers(file, "figures", "| new |\n"); !errors.Is(err, errNoMarkers) {
		t.Fatalf("without the second marker: %v", err)
	}
}

// The docs have the markers, so that `make bench` can write its tables.
func TestDocsHaveMarkers(t *testing.T) {
	for file, names := range map[string][]string{
		"../../docs/benchmarks.md": {"comparison", "counting", "readings", "registry cost", "figures", "edge"},
		"../../README.md":          {"comparison"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			begin, end := markers(name)
			if strings.Count(string(text), begin) != 1 || strings.Count(string(text), end) != 1 {
				t.Errorf("%s %v: %s", file, errNoMarkers, name)
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}
