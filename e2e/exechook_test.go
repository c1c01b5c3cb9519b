package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// noted is the text that the command of an app's hook writes.
const noted = "the command has run"

// notes returns an exec hook's command that leaves a proof that it ran.
func notes() []string { return []string{"/app", "note", noted} }

// An app keeps its own exec hook: the command runs after the drain.
func TestExecHook(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 4, variant: v, hook: notes(), flags: exitsAtOnce()}
		s.judge(v, s.rollingRestart("rolling restart of 4 replicas; an exec hook of the app's; it exits at SIGTERM", web))
		s.commandsRan(web)
	})
}

// Each pod's sidecar is killed while clients may still send requests. The hook continues
// to wait until a restarted sidecar has drained the pod. If the kubelet does not restart
// the sidecar, it waits until the budget ends. Then the command runs. The app itself
// does not wait: it exits at SIGTERM even with requests in flight.
func TestSidecarKilledUnderAnExecHook(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		web := app{
			name: "web", replicas: 2, variant: v, hook: notes(), flags: exitsAtOnce(),
			grace: 40 * time.Second, shareProcesses: true,
			// The phase is long enough for the test to see it.
			lastcall: map[string]string{"LASTCALL_ENDPOINTS_WAIT": "15s"},
		}
		clients := s.load(s.deploy(web))
		old := s.podsOf(web)
		kind, patch := restartedAt(time.Now())
		_, err := s.client.AppsV1().Deployments(s.namespace).Patch(s.ctx, web.name, kind, patch, metav1.PatchOptions{})
		s.must("restarting "+web.name, err)
		killed := map[types.UID]bool{}
		for range old {
			_, err := s.post(s.propagating(old, killed).Name, appPort, "/kill?program=lastcall")
			s.must("killing the sidecar", err)
		}
		s.replaced(web, uids(old))
		clients.more(20)
		counts := clients.stop()
		results.add("the sidecar is killed in the middle of a drain, and the app has an exec hook", v, counts, s.longest(web))
		s.judge(v, counts)
		s.commandsRan(web)
		s.onTime(web)
	})
}

// propagating waits until one of the pods that are not in killed is in the phase
// propagating, and its app has been notified of the drain. It adds the pod to killed and
// returns it. An app that was not notified would keep its clients' connections open.
func (s *scenario) propagating(pods []*corev1.Pod, killed map[types.UID]bool) (found *corev1.Pod) {
	s.Helper()
	s.eventually("a pod is propagating", func(ctx context.Context) (bool, error) {
		var last error
		for _, p := range pods {
			if killed[p.UID] {
				continue
			}
			is, err := s.phaseIs(p.Name, "propagating")(ctx)
			if is && s.knowsOfDrain(p.Name) {
				killed[p.UID], found = true, p
				return true, nil
			}
			last = err
		}
		return false, last
	})
	return found
}

// knowsOfDrain reports whether a pod's app has been notified of the current drain.
func (s *scenario) knowsOfDrain(pod string) bool {
	body, err := s.get(pod, sidecarPort, "/status")
	return err == nil && strings.Contains(string(body), "the app's notice: written")
}

// commandsRan checks that the hook's command ran in each pod of the app that is gone.
func (s *scenario) commandsRan(a app) {
	s.Helper()
	gone := s.pods.terminations(a.name)
	if len(gone) < a.replicas {
		s.Errorf("%d pods are gone, want %d at least", len(gone), a.replicas)
	}
	for _, end := range gone {
		if got := terminationMessageOf(end.pod, "app"); got != noted {
			s.Errorf("%s: the app's termination message is %q, want %q", end.pod.Name, got, noted)
		}
	}
}
