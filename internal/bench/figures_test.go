// Package bench measures the figures in docs/benchmarks.md, with the program as the
// image has it, and with real registries and proxies.
package bench

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"lastcall/internal/bench/compare"
	"lastcall/internal/bench/counting"
	"lastcall/internal/test/sidecar"
)

var write = flag.String("write", "", "write the tables between the markers in this file")

var program sidecar.Program

func TestMain(m *testing.M) {
	if compare.IsApp() {
		os.Exit(compare.App())
	}
	if counting.IsWorld() {
		counting.World()
	}
	os.Exit(sidecar.Main(m, &program))
}

// BenchmarkFigures measures everything once, as medians over its own repetitions.
// Run it with -benchtime 1x, as `make bench` does.
func BenchmarkFigures(b *testing.B) {
	var all table
	for _, part := range []struct {
		name    string
		measure func(*testing.B, *table)
	}{
		{"drain", measureDrainEnds},
		{"start", measureStart},
		{"size", measureSize},
		{"memory", measureMemory},
		{"idle", measureIdle},
	} {
		b.Run(part.name, func(b *testing.B) {
			var rows table // only the last of several runs counts
			part.measure(b, &rows)
			all.replace(part.name, rows)
		})
	}
	if b.Failed() {
		return
	}
	text := all.markdown(b)
	fmt.Println("\n" + text)
	put(b, *write, "figures", text)
}
