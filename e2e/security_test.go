package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// All scenarios' namespaces enforce Pod Security "restricted". A pod with Lastcall is
// accepted there, and a pod that violates the level is rejected.
func TestPodSecurity(t *testing.T) {
	s := start(t)
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for _, v := range []variant{native, classic} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: app{name: "web", variant: v}.podSpec()}
		_, err := s.client.CoreV1().Pods(s.namespace).Create(s.ctx, pod, dryRun)
		s.must(string(v), err)
		for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range containers {
				if containers[i].Name == sidecarName {
					containers[i].SecurityContext = nil
				}
			}
		}
		if _, err := s.client.CoreV1().Pods(s.namespace).Create(s.ctx, pod, dryRun); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
			s.Errorf("%s without its security context: %v, want it refused", v, err)
		}
	}
}
