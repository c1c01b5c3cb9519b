package bench

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"lastcall/internal/bench/counting"
	"lastcall/internal/test/sidecar"
)

var (
	countingRuns    = flag.Int("counting.runs", 0, "how many runs of the matrix are made; all where 0")
	countingMatch   = flag.String("counting.match", "", "a regular expression: only runs with such names")
	countingAtOnce  = flag.Int("counting.atonce", 90, "how many runs are made at a time")
	countingProgram = flag.String("counting.program", "", "the program whose drains are measured; where it is empty, the one of this source")
	countingLog     = flag.String("counting.log", filepath.Join(os.TempDir(), "lastcall-counting.jsonl"), "write what was seen of each run to this file, a line of JSON each")
)

// BenchmarkCounting measures how often drains end early, or wait needlessly, with
// the kernel's counter and with others. It runs once, with its own repetitions.
func BenchmarkCounting(b *testing.B) {
	before := busy(b)
	measured := &program
	if *countingProgram != "" {
		measured = &sidecar.Program{Path: *countingProgram}
	}
	results := counting.Play(b, measured, counting.Settings{Match: *countingMatch, Most: *countingRuns, AtOnce: *countingAtOnce, Log: *countingLog})
	share := busy(b).since(before)
	summary := counting.Summarize(results)
	text := summary.Markdown() + fmt.Sprintf("\nThe machine's processors were %.0f %% busy. %s", 100*share, provenance(b))
	fmt.Println("\n" + text)
	put(b, *write, "counting", text)
	for _, why := range summary.Broken() {
		b.Errorf("an invalid run: %s", why)
	}
	for _, run := range summary.Early(counting.Default) {
		b.Errorf("an early return: %s", run)
	}
}
