package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var abuse = regexp.MustCompile("(?m)^\\| .+ \\| `([a-z/]+)`: `(Test[A-Za-z0-9]+)` \\|$")

// TestAbuses checks that each test named in the table of abuses exists.
func TestAbuses(t *testing.T) {
	_, table, _ := strings.Cut(read(t, filepath.Join(project, "docs", "security.md")), "## Abuses that were tried")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := abuse.FindAllStringSubmatch(table, -1)
	if lines := strings.Count(table, "\n|"); len(rows) != lines-2 || len(rows) < 20 {
		t.Errorf("%d of %d lines of the table name a test", len(rows), lines-2)
	}
	for _, row := range rows {
		files, err := filepath.Glob(filepath.Join(project, row[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			found = found || strings.Contains(read(t, file), "func "+row[2]+"(t *testing.T)")
		}
		if !found {
			t.Errorf("%s has no %s", row[1], row[2])
		}
	}
}
