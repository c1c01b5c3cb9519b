package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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
	fmt.Fprintf(&out, "\nMeasured on %s at commit %s, on %s.\n", time.Now().UTC().Format(time.DateOnly), commit(b), machine(b))
	return out.String()
}

// machine tells what this machine is.
func machine(b testing.TB) string {
	b.Helper()
	model := "an unknown processor"
	cpus, err := os.Open("/proc/cpuinfo")
	if err != nil {
		b.Fatal(err)
	}
	defer cpus.Close()
	for lines := bufio.NewScanner(cpus); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		b.Fatal(err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s %s/%s; load average at the end: %s",
		runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		strings.Join(strings.Fields(string(load))[:3], " "))
}

// commit is what is measured.
func commit(b testing.TB) string {
	b.Helper()
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	text := strings.TrimSpace(string(out))
	// The table itself is changed by this.
	if exec.Command("git", "diff", "--quiet", "HEAD", "--", ":/", ":!/docs").Run() != nil {
		text += " with changes"
	}
	return text
}

// The markers between which the table is written.
const (
	begin = "<!-- make bench writes from here -->\n"
	end   = "<!-- to here -->\n"
)

var errNoMarkers = errors.New("lacks the markers between which the table is written")

func writeBetweenMarkers(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s %w", file, errNoMarkers)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}

func TestWriteBetweenMarkers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := os.WriteFile(file, []byte("# Figures\n"+begin+"old\n"+end+"The end.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what it has written it can write again
		if err := writeBetweenMarkers(file, "| new |\n"); err != nil {
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
	if err := writeBetweenMarkers(file, "| new |\n"); !errors.Is(err, errNoMarkers) {
		t.Fatalf("without the second marker: %v", err)
	}
}

// The docs have the markers, so that `make bench` can write its table.
func TestDocsHaveMarkers(t *testing.T) {
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), begin) != 1 || strings.Count(string(text), end) != 1 {
		t.Fatal(errNoMarkers)
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
