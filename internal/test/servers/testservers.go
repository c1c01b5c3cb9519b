// Package servers starts the real servers that the tests use: registries, proxies
// and their clients. Each chooses its own ports, and is stopped at the end of its
// test.
package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Bin returns the folder that the install script fills with the servers it builds.
func Bin() string { return filepath.Join(cache(), "bin") }

// nodeBin returns the folder that e2e/node/build fills with Kubernetes and etcd.
func nodeBin() string { return filepath.Join(cache(), "node", "bin") }

func cache() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "lastcall")
}

// Need returns the path of the program name: from Bin, from what e2e/node/build has
// built, or from PATH. If the program is missing, the test is skipped with a message.
// With CI or REQUIRE_SERVERS in the environment (`make test` sets it), the test fails
// instead.
func Need(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{Bin(), nodeBin()} {
		built := filepath.Join(dir, name)
		if _, err := os.Stat(built); err == nil {
			return built
		}
	}
	// Debian installs servers in sbin, which is not in an ordinary user's PATH.
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	Missing(t, name)
	return ""
}

// Missing ends a test whose server is not installed on this machine.
func Missing(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("REQUIRE_SERVERS") != "" {
		t.Fatalf("%s is not installed: `make test` installs it (internal/test/servers/install)", name)
	}
	t.Skipf("needs %s: run `make test`, which installs it", name)
}
