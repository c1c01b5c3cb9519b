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

// noted is what the command of an app's hook leaves behind.
const noted = "the command has run"

// notes is an exec hook's command that shows afterwards that it ran.
func notes() []string { return []string{"/app", "note", noted} }

// An app with an exec hook keeps it: the command runs when the pod is drained.
func TestExecHook(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 4, variant: v, hook: notes(), flags: exitsAtOnce()}
		s.judge(v, s.rollingRestart("rolling restart of 4 replicas; an exec hook of the app's; it exits at SIGTERM", web))
		s.commandsRan(web)
	})
}

// Each pod's sidecar is killed while clients may still come. The hook goes on
// waiting, until another sidecar has drained the pod, or the budget is over where
// the kubelet starts none; then the command runs. The app itself waits for
// nothing: it exits at SIGTERM, whatever it has in flight.
func TestSidecarKilledUnderAnExecHook(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		web := app{
			name: "web", replicas: 2, variant: v, hook: notes(), flags: exitsAtOnce(),
			grace: 40 * time.Second, shareProcesses: true,
			// The phase lasts, so that it is seen.
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

// propagating waits until one of the pods that are not in killed waits for
// clients, and its app was told of the drain; it adds it there and returns it.
// An app that was not told would keep its clients' connections.
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

// knowsOfDrain reports whether a pod's app has been told of a drain under way.
func (s *scenario) knowsOfDrain(pod string) bool {
	body, err := s.get(pod, sidecarPort, "/status")
	return err == nil && strings.Contains(string(body), "the app's notice: posted")
}

// commandsRan holds that the hook's command ran in each pod of the app that is gone.
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
