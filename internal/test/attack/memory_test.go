package attack

import (
	"fmt"
	"net/http"
	"testing"

	"lastcall/internal/test/memcgroup"
	"lastcall/internal/test/sidecar"
)

// callers is the number of callers at once, for each kind of attack.
const callers = 1000

// Whatever callers do, the process stays within the memory limit in deploy/, and
// the drain continues.
func TestMemory(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run(kind.Name, func(t *testing.T) { attackInCgroup(t, []Kind{kind}) })
	}
	t.Run("all at once", func(t *testing.T) { attackInCgroup(t, Kinds()) })
	// Without a CPU limit, a pod uses all CPUs of its node.
	t.Run("all at once, on a large node", func(t *testing.T) { attackInCgroup(t, Kinds(), "GOMAXPROCS=64") })
}

func attackInCgroup(t *testing.T, kinds []Kind, env ...string) {
	t.Helper()
	group := memcgroup.New(t, Deployed(t))
	t.Cleanup(func() {
		if n := group.Kills(t); n > 0 {
			t.Errorf("the kernel has killed %d processes at the memory limit", n)
		}
	})
	v := StartVictim(t, &sidecar.Program{Path: group.Program(t, program.Path)}, append(env, "LASTCALL_LOG_LEVEL=debug")...)
	v.AwaitLog(t, fmt.Sprintf(`"limit":%d`, Deployed(t)))
	v.Asks("/livez", http.StatusOK, 1)
	crowd := Start(t, v, callers, kinds...)
	// There is no room for all at once, so they connect repeatedly.
	v.Eventually(t, "each hostile caller to have connected three times on average", func() error {
		if came := crowd.Came(); came < 3*callers {
			return fmt.Errorf("it has come %d times", came)
		}
		return nil
	})
	v.Asks("/livez", http.StatusOK, 1)
	v.Drains()
	crowd.Stop()
	peak := group.Peak(t)
	if n := group.Kills(t); n > 0 || peak > Deployed(t) {
		t.Fatalf("the kernel has killed %d processes, and the most was %.1f MiB", n, mib(peak))
	}
	t.Logf("at most %.1f MiB", mib(peak))
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
