package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The tests in this file restart programs of the node. So they run alone, before all
// parallel tests. Within each test, all pods go through the scenario at the same time.

// restartNode restarts programs of the node, which must be the tests' own.
func (s *scenario) restartNode(programs ...string) {
	s.Helper()
	out, err := exec.CommandContext(s.ctx, "node/restart", append([]string{os.Getenv("E2E_NODE")}, programs...)...).CombinedOutput()
	s.must("restarting "+strings.Join(programs, ", ")+": "+string(out), err)
}

// ownNode fails the test if the node is not the tests' own. e2e/run skips tests that need
// such a node if it runs against a given cluster.
func ownNode(t *testing.T) {
	t.Helper()
	if os.Getenv("E2E_NODE") == "" {
		t.Fatal("E2E_NODE is not set: `make e2e` sets it")
	}
}

// The kubelet is about to restart an app and is itself restarted during the app's hook.
// Meanwhile the app has become healthy, so the new kubelet does not restart it. The pod
// is in service again after the grace period, and its app was never stopped.
func TestKubeletRestartsInALivenessHook(t *testing.T) {
	ownNode(t)
	s := startFor(t, patience)
	apps := map[variant]app{}
	pods := map[variant][]*corev1.Pod{}
	for _, v := range []variant{native, classic} {
		apps[v] = app{name: strings.Fields(string(v))[0], replicas: *times, variant: v, grace: 25 * time.Second, liveness: true,
			flags: exitsAtOnce(), lastcall: map[string]string{"LASTCALL_ENDPOINTS_WAIT": "15s"}}
		s.createDeployment(apps[v], apps[v].podSpec())
	}
	for v, web := range apps {
		s.ready(web)
		pods[v] = s.podsOf(web)
	}
	tell := func(what string) {
		for _, of := range pods {
			for _, pod := range of {
				_, err := s.post(pod.Name, appPort, what)
				s.must("telling the app "+what, err)
			}
		}
	}
	tell("/sick")
	for _, of := range pods {
		for _, pod := range of {
			s.eventually("the drain of "+pod.Name, s.phaseIs(pod.Name, "propagating"))
		}
	}
	s.waitForPods("no pod is ready", func(pods []*corev1.Pod) bool { return !slices.ContainsFunc(pods, isReady) })
	tell("/well")
	s.restartNode("kubelet")
	for v, web := range apps {
		s.backInService(web, pods[v], web.gracePeriod()+backWithin)
		for _, p := range s.podsOf(web) {
			for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
				if c.RestartCount != 0 {
					s.Errorf("%s of %s was restarted %d times, want 0", c.Name, p.Name, c.RestartCount)
				}
			}
		}
	}
}

// containerd and the kubelet are restarted during drains, as in an upgrade of the node.
// They lose their state: hooks are called again, and sidecars get SIGTERM again.
func TestNodeRestartsInDrains(t *testing.T) {
	ownNode(t)
	type side struct {
		*scenario
		web     app
		address string
		clients clients
		pods    []*corev1.Pod
	}
	var sides []*side
	for _, v := range []variant{native, classic} {
		sides = append(sides, &side{scenario: startFor(t, patience), web: app{name: "web", replicas: *times, variant: v, flags: exitsAtOnce()}})
	}
	for _, s := range sides {
		s.createDeployment(s.web, s.web.podSpec())
		s.address = s.service(s.web.name) // created early, so that kube-proxy knows it in time
	}
	for _, s := range sides {
		s.ready(s.web)
		s.pods = s.podsOf(s.web)
		s.clients = s.load(s.address, "-rate", "10", "-shortest", "15s", "-longest", "20s")
	}
	for _, s := range sides {
		if counts := s.clients.finish(); counts.InFlight == 0 {
			s.Fatal("no request is in flight: the load is too weak")
		}
		s.scaleTo(s.web, 0)
	}
	for _, s := range sides {
		for _, pod := range s.pods {
			s.eventually(pod.Name+" drains", s.phaseIs(pod.Name, "draining"))
		}
	}
	sides[0].restartNode("containerd", "kubelet")
	for _, s := range sides {
		counts := s.clients.stop()
		s.waitForPods("the pods are gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, s.web.name)) == 0 })
		results.add(fmt.Sprintf("containerd and the kubelet are restarted while %d pods drain, requests take 15 to 20 s; the app exits at SIGTERM", *times), s.web.variant, counts, s.longest(s.web))
		s.noneFailed(counts)
		for _, pod := range s.pods {
			s.ended(pod.Name, "drained")
		}
	}
}
