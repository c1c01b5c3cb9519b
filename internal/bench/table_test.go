package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"lastcall/internal/test/mdtable"
)

// makeBench is the command in the docs' markers.
const makeBench = "make bench"

// row is one figure.
type row struct {
	part                   string
	what, target, repeated string
	values                 []float64
	unit                   string
	digits                 int
}

type table struct{ rows []row }

// add adds a figure with all its measured values. The table shows their median.
func (t *table) add(what string, values []float64, unit string, digits int, target, repeated string) {
	t.rows = append(t.rows, row{what: what, values: values, unit: unit, digits: digits, target: target, repeated: repeated})
}

// replace replaces a part's rows.
func (t *table) replace(part string, rows table) {
	t.rows = slices.DeleteFunc(t.rows, func(r row) bool { return r.part == part })
	for _, r := range rows.rows {
		r.part = part
		t.rows = append(t.rows, r)
	}
}

// quantile returns the value that a share q of the values does not exceed.
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

// The docs have the markers that `make bench` needs to write its tables.
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
			begin, end := mdtable.Markers(makeBench, name)
			if strings.Count(string(text), begin) != 1 || strings.Count(string(text), end) != 1 {
				t.Errorf("%s %v: %s", file, mdtable.ErrNoMarkers, name)
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
