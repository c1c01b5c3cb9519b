package gate_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"lastcall/admission/gate"
)

const setController = "system:serviceaccount:kube-system:statefulset-controller"

// A deletion is denied and recorded. Once the pod has drained, the gate deletes it
// with the given options. The request does not need to be repeated.
func TestDeletion(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	seven, policy := int64(7), metav1.DeletePropagationForeground
	response := w.asks(t, setController, "web-0", &metav1.DeleteOptions{GracePeriodSeconds: &seven, PropagationPolicy: &policy})
	if response.Allowed || response.Result.Code != 429 || response.Result.Details != nil {
		t.Fatalf("answered %+v", response)
	}
	sidecar.drains(t)
	for range 3 { // a controller that asks again changes nothing
		if response := w.asks(t, setController, "web-0", &metav1.DeleteOptions{}); response.Allowed {
			t.Fatalf("answered %+v", response)
		}
	}
	if n := w.actions("delete pods"); n != 0 {
		t.Fatalf("%d deletions before it is drained", n)
	}
	sidecar.become("drained")
	eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
	for _, action := range w.client.Actions() {
		if d, ok := action.(clienttesting.DeleteAction); ok {
			o := d.GetDeleteOptions()
			if *o.GracePeriodSeconds != 7 || *o.PropagationPolicy != policy || *o.Preconditions.UID != "uid-web-0" {
				t.Errorf("deleted with %+v", o)
			}
		}
	}
	if n := sidecar.count("POST /drain?budget=none"); n != 1 {
		t.Errorf("%d drains", n)
	}
}

// A person's deletion waits until the pod is released, or gets the answer to try
// again. It is not allowed because the gate's process ends.
func TestHeldDeletion(t *testing.T) {
	t.Run("drained in time", func(t *testing.T) {
		sidecar := newSidecar(t)
		w := start(t, func(c *gate.Config) { c.Hold = patience }, sidecar.at(t, running("web-0")))
		go func() { <-sidecar.called; sidecar.become("drained") }()
		if response := w.asks(t, "jane", "web-0", &metav1.DeleteOptions{}); !response.Allowed {
			t.Errorf("answered %+v", response)
		}
	})
	t.Run("not in time", func(t *testing.T) {
		w := start(t, func(c *gate.Config) { c.Hold = time.Millisecond }, newSidecar(t).at(t, running("web-0")))
		response := w.asks(t, "jane", "web-0", &metav1.DeleteOptions{})
		if response.Allowed || response.Result.Details == nil || response.Result.Details.RetryAfterSeconds != 1 {
			t.Errorf("answered %+v", response)
		}
	})
	t.Run("the gate ends", func(t *testing.T) {
		sidecar := newSidecar(t)
		w := start(t, func(c *gate.Config) { c.Hold = time.Hour }, sidecar.at(t, running("web-0")))
		go func() { <-sidecar.called; w.stop() }()
		if response := w.asks(t, "jane", "web-0", &metav1.DeleteOptions{}); response.Allowed {
			t.Errorf("answered %+v", response)
		}
	})
}

// A request that can never be recorded is allowed, so that the pod can be deleted.
func TestUnrecordable(t *testing.T) {
	w := start(t, nil, newSidecar(t).at(t, running("web-0")))
	fails := apierrors.NewForbidden(corev1.Resource("pods"), "web-0", errors.New("RBAC"))
	w.client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, fails })
	if response := w.asks(t, setController, "web-0", &metav1.DeleteOptions{}); !response.Allowed || len(response.Warnings) == 0 {
		t.Errorf("answered %+v", response)
	}
	fails = apierrors.NewInternalError(errors.New("etcd"))
	if response := w.asks(t, setController, "web-0", &metav1.DeleteOptions{}); response.Allowed || !strings.Contains(response.Result.Message, "not recorded") {
		t.Errorf("answered %+v", response)
	}
}

// A pod that a registry has never held, or could not withdraw, is released when
// nothing is in flight. The reason names the registry.
func TestDrainedAndNotWithdrawn(t *testing.T) {
	for held, want := range map[string]string{
		`{"name":"eureka","state":"forgotten"}`: "drained",
		`{"name":"eureka","state":"not found"}`: "drained, but not withdrawn from eureka: it was never found there",
		`{"name":"consul","state":"forgotten"},{"name":"nacos","state":"given up","gave_up":"the last one"}`: "drained, but not withdrawn from nacos: the last one",
	} {
		sidecar := newSidecar(t)
		sidecar.held = held
		w := start(t, nil, sidecar.at(t, running("web-0")))
		w.asks(t, "jane", "web-0", &metav1.DeleteOptions{})
		sidecar.drains(t)
		sidecar.become("drained")
		eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
		for told := ""; !strings.HasPrefix(told, "Normal GateOpened"); {
			told = <-w.events.Events
			if got, opened := strings.CutPrefix(told, "Normal GateOpened "); opened && got != want+": delete as jane asked" {
				t.Errorf("with %s it was told %q, want %q", held, got, want)
			}
		}
	}
}
