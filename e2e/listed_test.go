package e2e

import (
	"fmt"
	"testing"
	"time"

	"lastcall/e2e/load"
)

// A rolling restart without minReadySeconds, of an app that registers late. With
// LASTCALL_READY_WHEN_LISTED, no pod is ready before clients find it. Without it, both
// old pods are gone before clients find a new one, if an app takes longer to register
// than the next pod takes to start, even on a busy machine.
func TestReadyWhenListed(t *testing.T) {
	const name = "rolling restart of 2 replicas without minReadySeconds, which register in Consul %.0f s after they are ready"
	t.Parallel()
	t.Run("waits", func(t *testing.T) {
		s := start(t)
		const after = 20 * time.Second
		counts := s.restartOfSlowApp(fmt.Sprintf(name+", with LASTCALL_READY_WHEN_LISTED", after.Seconds()), after, map[string]string{"LASTCALL_READY_WHEN_LISTED": "true"})
		s.judge(native, counts)
	})
	t.Run("does not wait", func(t *testing.T) {
		const after = 45 * time.Second
		if counts := start(t).restartOfSlowApp(fmt.Sprintf(name, after.Seconds()), after, nil); counts.Failed == 0 {
			t.Errorf("none of %d requests failed: the app does not register late enough", counts.Requests)
		}
	})
}

func (s *scenario) restartOfSlowApp(name string, registersAfter time.Duration, settings map[string]string) load.Counts {
	s.Helper()
	consul := s.consul()
	web := app{name: "web", replicas: 2, variant: native, lastcall: settings}
	spec := consul.podSpec(s, web, false)
	main := &spec.Containers[0]
	main.Args = append([]string{main.Args[0], "-after", registersAfter.String()}, main.Args[1:]...)
	s.createDeployment(web, spec)
	s.ready(web)
	consul.holds(s, web)
	clients := consul.load(s)
	s.restart(web)
	consul.holds(s, web)
	clients.more(40)
	counts := clients.stop()
	results.add(name, web.variant, counts, s.longest(web))
	s.wentWell(web)
	return counts
}
