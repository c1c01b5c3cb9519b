package bench

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"lastcall/internal/bench/compare"
	"lastcall/internal/test/mdtable"
)

var (
	readme = flag.String("readme", "", "write the comparison's outcome between the markers in this file")
	chart  = flag.String("chart", "", "draw the comparison in this file")
)

// BenchmarkComparison drains pods in several ways, side by side, with the same
// scripted work. It runs once, with its own repetitions.
func BenchmarkComparison(b *testing.B) {
	settings := compare.Defaults()
	before := busy(b)
	results := compare.Run(b, &program, settings)
	share := busy(b).since(before)
	for i := range results {
		if r := &results[i]; r.Approach == compare.Lastcall {
			fmt.Printf("%s: %v until the return, %v wasted\n", r.Scenario, r.Took, r.Wasted)
			for _, failure := range r.Failures {
				b.Logf("with Lastcall a request failed: %v", failure)
			}
		}
	}
	summary := compare.Summarize(results, settings.Quiet)
	text := summary.Markdown() + fmt.Sprintf("\nThe machine's processors were %.0f %% busy. %s", 100*share, provenance(b))
	fmt.Println("\n" + text)
	put(b, *write, "comparison", text)
	put(b, *readme, "comparison", fmt.Sprintf("![From the preStop hook's call to its return, and failed requests](docs/benchmarks.svg)\n\nPods that are deleted under load, each way on the same scripted work. Where half of the clients come by a registry: %s How this is measured, and all figures: [docs/benchmarks.md](docs/benchmarks.md).\n",
		summary.Verdict(compare.ByRegistry)))
	if *chart != "" {
		if err := os.WriteFile(*chart, []byte(summary.SVG()), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// put writes text between the markers in file, if file is not empty.
func put(b *testing.B, file, name, text string) {
	b.Helper()
	if file == "" {
		return
	}
	if err := mdtable.Write(file, makeBench, name, text); err != nil {
		b.Fatal(err)
	}
}
