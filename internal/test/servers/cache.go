package servers

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// DependsOn tells `go test` that a test depends on the source of a package and
// of all in this module that it imports. A test that builds and starts a
// program calls it; otherwise an old result is taken from go test's cache after
// the program has changed, because only what a test itself looks at counts.
func DependsOn(t testing.TB, pkg string) {
	t.Helper()
	DependsOnIn(t, ".", pkg)
}

// DependsOnIn is DependsOn for a package of the module whose folder is dir. What it
// imports of modules that are folders too counts as well.
func DependsOnIn(t testing.TB, dir, pkg string) {
	t.Helper()
	list := exec.Command("go", "list", "-C", dir, "-deps", "-f", "{{with .Module}}{{if or .Main .Replace}}{{$.Dir}}{{end}}{{end}}", pkg)
	var problems strings.Builder
	list.Stderr = &problems
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", pkg, err, problems.String())
	}
	for _, dir := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if _, err := os.ReadDir(dir); err != nil { // this is the look
			t.Fatal(err)
		}
	}
}
