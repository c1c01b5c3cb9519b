package counting

import (
	"os"
	"path/filepath"
	"testing"

	"lastcall/internal/sidecartest"
)

var program sidecartest.Program

func TestMain(m *testing.M) {
	if IsWorld() {
		World()
	}
	os.Exit(sidecartest.Main(m, &program))
}

// A few runs of each kind are what they should be, whatever the judges say.
func TestRuns(t *testing.T) {
	match := os.Getenv("COUNTING_MATCH")
	results := Play(t, &program, Settings{Match: match, AtOnce: 60, Log: filepath.Join(os.TempDir(), "counting-test.jsonl"), Everything: true})
	for _, r := range results {
		t.Logf("%s: broken %q", r.Run.String(), r.Broken)
		for name, v := range r.Verdicts {
			t.Logf("    %-14s %6.2f %s open %q needless %v", name, v.Seconds, v.Outcome, v.Open, v.Needless)
		}
	}
}
