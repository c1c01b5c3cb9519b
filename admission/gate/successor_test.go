package gate_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lastcall/admission/gate"
)

// create creates a pod with this UID at the fake API server.
func (w *world) create(t *testing.T, pod *corev1.Pod, uid types.UID) {
	t.Helper()
	pod.UID = uid
	if err := w.client.Tracker().Create(corev1.SchemeGroupVersion.WithResource("pods"), pod, "team"); err != nil {
		t.Fatal(err)
	}
}

// A user who repeats an eviction, without knowing that the pod is gone, does not evict
// its successor. If the user asks once more, as when another node is drained, the
// successor is drained too.
func TestSuccessorIsAskedForAgain(t *testing.T) {
	for name, phase := range map[string]corev1.PodPhase{"started": corev1.PodRunning, "not started": corev1.PodPending} {
		t.Run(name, func(t *testing.T) {
			sidecar := newSidecar(t)
			w := start(t, nil, sidecar.at(t, running("web-0")))
			evictable(w, new(atomic.Bool))
			w.evicts(t, "jane", "web-0")
			sidecar.drains(t)
			sidecar.become("drained")
			eventually(t, "the pod is evicted", func() bool { return w.pod(t, "web-0") == nil })
			next := newSidecar(t)
			pod := next.at(t, running("web-0"))
			pod.Status.Phase = phase
			w.create(t, pod, "next")

			// The gate is notified a moment later that the first pod is gone.
			eventually(t, "it is remembered", func() bool {
				response := w.evicts(t, "jane", "web-0")
				return !response.Allowed && response.Result.Code == http.StatusNotFound
			})
			switch response := w.evicts(t, "jane", "web-0"); {
			case phase == corev1.PodPending && !response.Allowed:
				t.Errorf("the second time answered %+v", response)
			case phase == corev1.PodRunning:
				if response.Allowed || response.Result.Code != http.StatusTooManyRequests {
					t.Errorf("the second time answered %+v", response)
				}
				next.drains(t)
			}
		})
	}
}

// A user who knows that a pod is being deleted means its successor, as with kubectl
// delete twice in a row.
func TestSuccessorOfAPodThatIsKnownToBeGone(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, func(c *gate.Config) { c.Hold = patience }, sidecar.at(t, running("web-0")))
	answered := make(chan bool, 1)
	go func() { answered <- w.asks(t, "jane", "web-0", &metav1.DeleteOptions{}).Allowed }()
	sidecar.drains(t)
	sidecar.become("drained")
	if !<-answered {
		t.Fatal("the deletion was not let through")
	}
	eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
	next := newSidecar(t)
	w.create(t, next.at(t, running("web-0")), "next")
	go func() { answered <- w.asks(t, "jane", "web-0", &metav1.DeleteOptions{}).Allowed }()
	next.drains(t)
	next.become("drained")
	if !<-answered {
		t.Error("the deletion of the successor was not let through")
	}
}

// A failure of the API server while an Ask is decided does not release the pod.
func TestPodThatCannotBeReadAgain(t *testing.T) {
	for name, user := range map[string]string{"a controller": setController, "a person": "jane"} {
		t.Run(name, func(t *testing.T) {
			w := start(t, nil, newSidecar(t).at(t, running("web-0")))
			w.client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewConflict(corev1.Resource("pods"), "web-0", errors.New("changed"))
			})
			pod := w.pod(t, "web-0")
			w.client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewInternalError(errors.New("etcd is away"))
			})
			response := w.review(t, &admissionv1.AdmissionRequest{
				Operation: admissionv1.Delete, Name: "web-0", OldObject: raw(t, pod), Options: raw(t, &metav1.DeleteOptions{}),
				UserInfo: authenticationv1.UserInfo{Username: user},
			})
			if response.Allowed || response.Result.Code != http.StatusTooManyRequests || !strings.Contains(response.Result.Message, "etcd is away") {
				t.Errorf("answered %+v", response)
			}
		})
	}
}

// If a new pod takes the name while an Ask is decided, the answer says that the old
// pod is gone, and the new one is not deleted.
func TestSuccessorInTheMiddleOfAnAsk(t *testing.T) {
	w := start(t, nil, newSidecar(t).at(t, running("web-0")))
	old := w.pod(t, "web-0")
	w.client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(corev1.Resource("pods"), "web-0", errors.New("another uid"))
	})
	w.client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		pod := old.DeepCopy()
		pod.UID = "next"
		return true, pod, nil
	})
	response := w.review(t, &admissionv1.AdmissionRequest{
		Operation: admissionv1.Delete, Name: "web-0", OldObject: raw(t, old), Options: raw(t, &metav1.DeleteOptions{}),
		UserInfo: authenticationv1.UserInfo{Username: "jane"},
	})
	if response.Allowed || response.Result.Code != http.StatusNotFound {
		t.Errorf("answered %+v", response)
	}
}

// The gate does not repeat an eviction that another replica has carried out: the API
// server would retry it on the successor for 10 s.
func TestEvictionOfAPodThatIsGone(t *testing.T) {
	for name, there := range map[string]func() *corev1.Pod{
		"gone": func() *corev1.Pod { return nil },
		"another pod": func() *corev1.Pod {
			pod := running("web-0")
			pod.UID = "next"
			return pod
		},
	} {
		t.Run(name, func(t *testing.T) {
			sidecar := newSidecar(t)
			sidecar.become("drained")
			pod := sidecar.at(t, running("web-0"))
			pod.Annotations[gate.Recorded] = fmt.Sprintf(`{"uid":%q,"verb":"evict","by":["jane"],"at":%q,"released":"drained"}`, pod.UID, time.Now().UTC().Format(time.RFC3339))
			client := fake.NewClientset(pod)
			var looked atomic.Bool
			client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				defer looked.Store(true)
				if now := there(); now != nil {
					return true, now, nil
				}
				return true, nil, apierrors.NewNotFound(corev1.Resource("pods"), "web-0")
			})
			t.Cleanup(func() { // runs after the gate has ended
				if n := (&world{client: client}).actions("create pods/eviction"); n != 0 {
					t.Errorf("it was evicted %d times", n)
				}
			})
			join(t, client, nil)
			eventually(t, "the pod is looked at", looked.Load)
		})
	}
}
