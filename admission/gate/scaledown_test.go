package gate_test

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lastcall/admission/gate"
)

// When a ReplicaSet is scaled from 6 to 3, three pods are drained, even if its
// controller chooses others at each attempt. When the ReplicaSet is scaled up again,
// the pods that are left serve again.
func TestScaleDown(t *testing.T) {
	yes, three := true, int32(3)
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team", UID: "set"}, Spec: appsv1.ReplicaSetSpec{Replicas: &three}}
	objects := []runtime.Object{set}
	sidecars := map[string]*fakeSidecar{}
	for i := range 6 {
		name := fmt.Sprintf("web-%d", i)
		sidecars[name] = newSidecar(t)
		pod := sidecars[name].at(t, running(name))
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "set", Controller: &yes}}
		objects = append(objects, pod)
	}
	w := start(t, nil, objects...)
	replicas := []*world{w, join(t, w.client, nil)}
	const controller = "system:serviceaccount:kube-system:replicaset-controller"
	n := 0
	for range 3 { // the controller asks repeatedly, for different pods, at either replica of the gate
		for name := range sidecars {
			n++
			if response := replicas[n%2].asks(t, controller, name, &metav1.DeleteOptions{}); response.Allowed {
				t.Fatalf("answered %+v", response)
			}
		}
	}
	var leaving []string
	for name := range sidecars {
		if w.pod(t, name).Annotations[gate.Recorded] != "" {
			leaving = append(leaving, name)
		}
	}
	if len(leaving) != 3 {
		t.Fatalf("%q leave", leaving)
	}
	slices.Sort(leaving)
	sidecars[leaving[0]].drains(t)
	sidecars[leaving[0]].become("drained")
	eventually(t, "the first one is deleted", func() bool { return w.pod(t, leaving[0]) == nil })

	five := int32(5)
	set.Spec.Replicas = &five
	if _, err := w.client.AppsV1().ReplicaSets("team").Update(t.Context(), set, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	sidecars[leaving[1]].drains(t)
	sidecars[leaving[1]].become("drained")
	sidecars[leaving[1]].is(t, "DELETE /drain")
	if w.pod(t, leaving[1]) == nil {
		t.Error("a pod that is needed again is deleted")
	}
}
