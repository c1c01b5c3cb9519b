// Package servers starts the real servers that the tests run against:
// registries, proxies and their clients, each on ports of its own choosing,
// each stopped when its test ends.
package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Bin is the folder that ./install fills with the servers it builds.
func Bin() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "lastcall", "bin")
}

// Need returns the path of the program name, from Bin or from PATH. Where it
// is missing, the test is skipped, saying so; with CI or REQUIRE_SERVERS in
// the environment (`make test` sets it) the test fails instead.
func Need(t testing.TB, name string) string {
	t.Helper()
	built := filepath.Join(Bin(), name)
	if _, err := os.Stat(built); err == nil {
		return built
	}
	// Debian keeps servers in sbin, which an ordinary user's PATH lacks.
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	Missing(t, name)
	return ""
}

// Missing ends a test whose server is not on this machine.
func Missing(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("REQUIRE_SERVERS") != "" {
		t.Fatalf("%s is not installed: `make test` installs it (internal/test/servers/install)", name)
	}
	t.Skipf("needs %s: run `make test`, which installs it", name)
}
