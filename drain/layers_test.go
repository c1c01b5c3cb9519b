package drain

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the tasks, pollers, the app's watch and the driver need of the Drainer is
// handed to them as functions: only these files know it.
func TestNothingBelowCallsUpIntoTheDrainer(t *testing.T) {
	above := []string{"drainer.go", "engine.go", "join.go", "confirm.go", "restart.go", "watch.go", "appready.go", "ending.go", "report.go", "status.go", "totals.go", "readiness.go"}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || slices.Contains(above, name) {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name == "Drainer" {
				t.Errorf("%s: below the Drainer, and knows it", set.Position(id.Pos()))
			}
			return true
		})
	}
}
