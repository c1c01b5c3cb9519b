package testservers

import (
	"os"
	"path/filepath"
	"testing"
)

// DependsOn tells `go test` that a test depends on all files under the given
// folders of the module. An old result is otherwise taken from its cache even
// when, say, the program that the test builds and starts has changed: only what
// the test itself looks at counts.
func DependsOn(t testing.TB, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		entries, err := os.ReadDir(folder) // this is the look
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.IsDir() {
				DependsOn(t, filepath.Join(folder, entry.Name()))
			}
		}
	}
}
