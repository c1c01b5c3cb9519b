package gate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/admission/gate"
)

// Removing the annotation cancels the drain, even if it was removed while no gate was
// running.
func TestWithdrawal(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
	sidecar.drains(t)
	withdraw := func(w *world) {
		pod := w.pod(t, "web-0")
		delete(pod.Annotations, gate.Recorded)
		if _, err := w.client.CoreV1().Pods("team").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	withdraw(w)
	sidecar.is(t, "DELETE /drain")
	eventually(t, "nothing of it is left", func() bool { return w.pod(t, "web-0").Annotations[gate.Begun] == "" })

	w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
	sidecar.drains(t)
	w.stop()
	withdraw(w)
	join(t, w.client, nil)
	sidecar.is(t, "DELETE /drain")
}

// A pod that loses the label while it is held is no longer held. A real API server
// sends watchers with a selector a deletion in this case. The fake one does not, so
// the test deletes and creates the pod.
func TestLabelRemoved(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
	sidecar.drains(t)
	pod := w.pod(t, "web-0")
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	if err := w.client.Tracker().Delete(pods, "team", "web-0"); err != nil {
		t.Fatal(err)
	}
	delete(pod.Labels, gate.Label)
	if err := w.client.Tracker().Create(pods, pod, "team"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was asked is done", func() bool { return w.actions("delete pods") > 0 })
}

// A recorded request is carried out by a gate that starts later. Two gates together
// delete the pod once.
func TestRestart(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
	w.stop()
	sidecar.become("serving") // as if no drain had begun yet
	join(t, w.client, nil)
	join(t, w.client, nil)
	sidecar.drains(t)
	sidecar.become("drained")
	eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
}
