package servers

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// GoEnv is the environment for `go build`: with the flags of `make build` and of
// internal/test/servers/install, whose packages are then not compiled again.
func GoEnv() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+os.Getenv("GOFLAGS")+" -trimpath -gcflags=all=-dwarf=false")
}

// DependsOn makes the test cache of `go test` depend on the sources of a package
// and of its imports in this module. A test that builds and starts a program must
// call it. Otherwise `go test` reuses an old result after the program has changed,
// because it only considers the files that the test itself opens.
func DependsOn(t testing.TB, pkg string) {
	t.Helper()
	DependsOnIn(t, ".", pkg)
}

// DependsOnIn is DependsOn for a package of the module in the folder dir. It
// includes imports from modules that are local folders.
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
		if _, err := os.ReadDir(dir); err != nil { // opening the folder records it in the test cache
			t.Fatal(err)
		}
	}
}
