package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/admission/internal/apiservertest"
	"lastcall/internal/test/mdtable"
)

const command, name = "make bench-admission", "figures"

var write = flag.String("write", "", "the file with the markers to write the figures to")

// figure is one row of the table.
type figure struct{ what, value, of string }

// BenchmarkAdmission measures everything once, whatever b.N is.
func BenchmarkAdmission(b *testing.B) {
	dir := b.TempDir()
	program := build(b, dir)
	var all []figure
	add := func(what, value, of string) { all = append(all, figure{what, value, of}) }

	injecting := launch(b, program, dir, "-parameters", parameters(b, dir))
	load := injecting.load(b)
	add("webhook of the injection, 100 pods a second: median", milliseconds(load.quantile(0.5)), load.of())
	add("the same, 99 of 100 are below", milliseconds(load.quantile(0.99)), load.of())
	add("CPU meanwhile", fmt.Sprintf("%.1f %% of a core", 100*load.cpu.Seconds()/load.took.Seconds()), load.took.Round(time.Second).String())
	add("resident memory after that", megabytes(injecting.memory(b, "VmRSS")), "1 process")
	injecting.stop()

	s := apiservertest.Start(b, apiservertest.Versions()[1])
	for _, namespace := range []string{"team", "lastcall-system"} {
		s.Namespace(b, namespace)
	}
	for _, part := range []string{"server", "gate"} {
		s.Apply(b, "../../../deploy/admission/"+part+"/rbac.yaml", "", nil)
	}
	kubeconfig := s.Kubeconfig(b)
	gate := func(pods string) *process {
		p := launch(b, program, dir, "-parameters", "", "-gate", "-kubeconfig", kubeconfig)
		add("resident memory of the gate, "+pods, megabytes(p.memory(b, "VmRSS")), "1 process, when it is ready")
		add("the most until then", megabytes(p.memory(b, "VmHWM")), "the same")
		return p
	}
	gate("no pods with its label").stop()
	create(b, s, 10_000)
	holding := gate("10,000 pods with its label")
	took := fromDrained(b, s)
	of := fmt.Sprintf("%d pods of these, 10 a second, half of them evicted", len(took))
	add("from the end of a drain to the gate's deletion: median", milliseconds(took[len(took)/2]), of)
	add("the longest", milliseconds(took[len(took)-1]), of)
	holding.stop()

	var text strings.Builder
	text.WriteString("| figure | value | of |\n| --- | --- | --- |\n")
	for _, f := range all {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", f.what, f.value, f.of)
	}
	fmt.Fprintf(&text, "\n%s", provenance(b))
	b.Log("\n" + text.String())
	if *write != "" {
		if err := mdtable.Write(*write, command, name, text.String()); err != nil {
			b.Fatal(err)
		}
	}
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
func megabytes(n float64) string { return fmt.Sprintf("%.0f MB", n) }

// provenance returns the date, the version and the machine of the measurement.
func provenance(b *testing.B) string {
	b.Helper()
	commit, err := exec.CommandContext(b.Context(), "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	model := "an unknown processor"
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(cpus)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("Measured on %s at commit %s, on %d cores of %s, %s; load average at the end: %s.\n", time.Now().UTC().Format(time.DateOnly),
		strings.TrimSpace(string(commit)), runtime.NumCPU(), model, runtime.Version(), strings.Join(strings.Fields(string(load))[:3], " "))
}

// The docs must have the markers between which the figures are written.
func TestDocsHaveMarkers(t *testing.T) {
	text, err := os.ReadFile("../../../docs/admission.md")
	if err != nil {
		t.Fatal(err)
	}
	begin, end := mdtable.Markers(command, name)
	if strings.Count(string(text), begin) != 1 || strings.Count(string(text), end) != 1 {
		t.Errorf("docs/admission.md %v", mdtable.ErrNoMarkers)
	}
}

func TestQuantile(t *testing.T) {
	m := measured{durations: []time.Duration{3, 1, 2, 5, 4}}
	slices.Sort(m.durations)
	if m.quantile(0.5) != 3 || m.quantile(0.99) != 5 || m.quantile(0) != 1 {
		t.Errorf("%v %v %v", m.quantile(0), m.quantile(0.5), m.quantile(0.99))
	}
}
