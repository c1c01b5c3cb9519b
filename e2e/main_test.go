// Package e2e runs Lastcall in the pods of a real cluster under load, and counts failed
// requests. README.md describes how to run it and how to write a scenario.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"lastcall/internal/test/mdtable"
)

// results collects the scenarios' results for the table at the end.
var results table

// times is the number of pods in which some scenarios run side by side. These are
// scenarios in which a fault may show only sometimes.
var times = flag.Int("times", 5, "number of pods in which scenarios about a single pod are tried")

func TestMain(m *testing.M) {
	write := flag.String("write", "", "file in which the table is written between its markers")
	flag.Parse()
	code := m.Run()
	if text := results.markdown(); text != "" {
		fmt.Println(text)
		if *write != "" && code == 0 {
			if err := mdtable.Write(*write, "make e2e", "scenarios", text); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}
