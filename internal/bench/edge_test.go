package bench

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/internal/test/attack"
	"lastcall/internal/test/memcgroup"
	"lastcall/internal/test/sidecar"
)

const (
	hostile     = 5000 // number of callers besides the kubelet
	kubeletAsks = 1000 // number of calls per endpoint
	inCgroup    = 1000 // number of callers of each kind, with the deployed memory limit
)

// BenchmarkEdge measures how fast the kubelet gets answers during an attack, and
// how much memory each kind of attack uses. Run it with -benchtime 1x.
func BenchmarkEdge(b *testing.B) {
	text := kubeletUnderAttack(b) + "\n" + memoryUnderAttack(b) + "\n" + provenance(b)
	fmt.Println("\n" + text)
	put(b, *write, "edge", text)
}

func kubeletUnderAttack(b *testing.B) string {
	var out strings.Builder
	fmt.Fprintf(&out, "| the kubelet's call, among %d hostile callers | within 1 s | median | 99 of 100 are below | slowest |\n| --- | --- | --- | --- | --- |\n", hostile)
	row := func(what string, all []time.Duration) {
		within := 0
		values := make([]float64, len(all))
		for i, d := range all {
			values[i] = milliseconds(d)
			if d <= time.Second {
				within++
			}
		}
		fmt.Fprintf(&out, "| %s | %d of %d | %.1f ms | %.1f ms | %.1f ms |\n", what, within, len(all), quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1))
	}
	v := attack.StartVictim(b, &program)
	crowd := attack.Start(b, v, hostile, slices.DeleteFunc(attack.Kinds(), func(k attack.Kind) bool { return k.Drains })...)
	row("`/readyz`, serving", v.Asks("/readyz", http.StatusOK, kubeletAsks))
	row("`/livez`, serving", v.Asks("/livez", http.StatusOK, kubeletAsks))
	crowd.Stop()
	came := crowd.Came()
	crowd = attack.Start(b, v, hostile, attack.Kinds()...)
	v.AwaitDrain()
	row("`/readyz`, draining", v.Asks("/readyz", http.StatusServiceUnavailable, kubeletAsks))
	row("`/livez`, draining", v.Asks("/livez", http.StatusOK, kubeletAsks))
	v.Drains()
	row("`/prestop`, of a pod that has drained", v.Asks("/prestop", http.StatusOK, kubeletAsks))
	crowd.Stop()
	v.Stop()
	fmt.Fprintf(&out, "\nThe callers opened %d connections meanwhile.\n", came+crowd.Came())
	return out.String()
}

func memoryUnderAttack(b *testing.B) string {
	var out strings.Builder
	limit := attack.Deployed(b)
	fmt.Fprintf(&out, "| %d callers at once, again and again | the most in the cgroup, of %d MiB |\n| --- | --- |\n", inCgroup, limit>>20)
	all := attack.Kinds()
	kinds := [][]attack.Kind{all}
	for _, k := range all {
		kinds = append(kinds, []attack.Kind{k})
	}
	for _, k := range kinds {
		name := k[0].Name
		if len(k) > 1 {
			name = "all of these together"
		}
		b.Run(name, func(b *testing.B) {
			group := memcgroup.New(b, limit)
			v := attack.StartVictim(b, &sidecar.Program{Path: group.Program(b, program.Path)})
			crowd := attack.Start(b, v, inCgroup, k...)
			v.Eventually(b, "each hostile caller to have connected five times on average", func() error {
				if came := crowd.Came(); came < 5*inCgroup {
					return fmt.Errorf("it has come %d times", came)
				}
				return nil
			})
			v.Drains()
			crowd.Stop()
			if n := group.Kills(b); n > 0 {
				b.Fatal("the kernel has killed the sidecar")
			}
			fmt.Fprintf(&out, "| %s | %.1f MiB |\n", name, float64(group.Peak(b))/(1<<20))
		})
	}
	return out.String()
}
