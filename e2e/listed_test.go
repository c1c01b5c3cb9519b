package e2e

import (
	"testing"

	"lastcall/e2e/load"
)

// registersAfter is how long after it is ready by its own word the app of this
// scenario registers. It is longer than the next pod takes to start, so that two
// old pods leave before a new one is listed, if nobody waits for that.
const registersAfter = "20s"

// A rolling restart without minReadySeconds, of an app that takes its time to
// register: with LASTCALL_READY_WHEN_LISTED, no pod is ready before clients find
// it. Without that, both old pods are gone before a new one is found.
func TestReadyWhenListed(t *testing.T) {
	const name = "rolling restart of 2 replicas without minReadySeconds, which register in Consul 20 s after they are ready"
	t.Parallel()
	t.Run("waits", func(t *testing.T) {
		s := start(t)
		counts := s.restartOfSlowApp(name+", with LASTCALL_READY_WHEN_LISTED", map[string]string{"LASTCALL_READY_WHEN_LISTED": "true"})
		s.judge(native, counts)
	})
	t.Run("does not wait", func(t *testing.T) {
		if counts := start(t).restartOfSlowApp(name, nil); counts.Failed == 0 {
			t.Errorf("none of %d requests failed: the app does not register late enough", counts.Requests)
		}
	})
}

func (s *scenario) restartOfSlowApp(name string, settings map[string]string) load.Counts {
	s.Helper()
	consul := s.consul()
	web := app{name: "web", replicas: 2, variant: native, lastcall: settings}
	spec := consul.podSpec(s, web, false)
	main := &spec.Containers[0]
	main.Args = append([]string{main.Args[0], "-after", registersAfter}, main.Args[1:]...)
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
