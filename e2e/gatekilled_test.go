package e2e

import (
	"os/exec"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The gate's pods are killed in the middle of a drain, and none is running at the end of
// another drain. The recorded requests are carried out when the gate is back. While it is
// away, deletions work as without the gate.
func (a *admission) gateIsKilled(t *testing.T) {
	s := startFor(t, patience)
	system := *a.scenario
	system.T = t
	a = &admission{&system}
	web := app{name: "web", replicas: 3, variant: gated, grace: shortGrace, flags: exitsAtOnce()}
	s.createPods(web, func(int) corev1.PodSpec { return web.podSpec() })
	address := s.service(web.name)
	s.gates()
	s.ready(web)
	pods := s.podsOf(web)
	clients := s.load(address, longRequests()...)
	isGone := func(pod *corev1.Pod) {
		s.waitForPods(pod.Name+" is gone", func(pods []*corev1.Pod) bool { return byName(pods, pod.Name) == nil })
	}
	isThere := func(pod *corev1.Pod) {
		if p := byName(s.pods.now(), pod.Name); p == nil || p.DeletionTimestamp != nil {
			s.Errorf("%s was let go before the gate was back", pod.Name)
		}
	}

	first := pods[0]
	letGo := s.keepsBusy(first) // makes the drain last until the gate is back
	s.isEvictedLater(first)
	a.kill()
	isThere(first)
	letGo()
	isGone(first)

	s.gates() // waits until the API server reaches the new pods
	second := pods[1]
	letGo = s.keepsBusy(second) // makes the drain last until the gate is away
	s.isEvictedLater(second)
	a.scaleTo(app{name: admissionName}, 0)
	a.has(0, nil)
	letGo()
	s.eventually(second.Name+" has drained", s.phaseIs(second.Name, "drained"))
	counts := clients.stop()

	third := pods[2] // no request is in flight any more
	s.must("deleting a pod without the gate", s.client.CoreV1().Pods(s.namespace).Delete(s.ctx, third.Name, metav1.DeleteOptions{}))
	isGone(third)
	isThere(second)
	a.scaleTo(app{name: admissionName}, 2)
	isGone(second)
	a.has(2, nil)

	results.add("2 pods are evicted, with "+longWork+", and the gate's pods are killed; the app exits at SIGTERM", gated, counts, s.longest(web))
	s.noneFailed(counts)
	s.wentWell(web)
}

// kill deletes both replicas by force, and waits until new ones are ready.
func (a *admission) kill() {
	a.Helper()
	old := uids(a.pods.now())
	kill := exec.CommandContext(a.ctx, "kubectl", "delete", "pod", "--all", "--force", "--grace-period=0", "--namespace", a.namespace)
	if out, err := kill.CombinedOutput(); err != nil {
		a.Fatalf("killing the gate: %v\n%s", err, out)
	}
	a.has(2, old)
}
