package e2e

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// createStatefulSet creates a StatefulSet of the app, with this pod spec.
func (s *scenario) createStatefulSet(web app, spec corev1.PodSpec) {
	s.Helper()
	labels := map[string]string{"app": web.name}
	policy := appsv1.ParallelPodManagement // for a fast start; restarts are one by one anyway
	if web.ordered {
		policy = appsv1.OrderedReadyPodManagement
	}
	_, err := s.client.AppsV1().StatefulSets(s.namespace).Create(s.ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: web.name},
		Spec: appsv1.StatefulSetSpec{
			Replicas:            new(int32(web.replicas)),
			MinReadySeconds:     web.minReady,
			ServiceName:         web.name,
			PodManagementPolicy: policy,
			Selector:            &metav1.LabelSelector{MatchLabels: labels},
			Template:            corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: web.labels()}, Spec: spec},
		},
	}, metav1.CreateOptions{})
	s.must("creating a StatefulSet", err)
}

// restartStatefulSet restarts the pods one by one, and waits until all are replaced.
func (s *scenario) restartStatefulSet(web app) {
	s.Helper()
	old := uids(s.podsOf(web))
	kind, patch := restartedAt(time.Now())
	_, err := s.client.AppsV1().StatefulSets(s.namespace).Patch(s.ctx, web.name, kind, patch, metav1.PatchOptions{})
	s.must("restarting", err)
	s.replaced(web, old)
}

// scaleStatefulSet sets the number of replicas, and waits for it.
func (s *scenario) scaleStatefulSet(a *app, replicas int) {
	s.Helper()
	kind, patch := ofReplicas(replicas)
	_, err := s.client.AppsV1().StatefulSets(s.namespace).Patch(s.ctx, a.name, kind, patch, metav1.PatchOptions{})
	s.must("scaling", err)
	a.replicas = replicas
	s.ready(*a)
}
