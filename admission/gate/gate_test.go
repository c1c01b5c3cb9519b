package gate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"lastcall/admission/gate"
)

const setController = "system:serviceaccount:kube-system:statefulset-controller"

// A deletion is denied, recorded, and carried out with its options once the pod
// has drained, without anybody asking again.
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

// A person's deletion is answered when the pod may go, or that it is to be asked
// again; the end of the gate's process is no reason to let it through.
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

// evictable has the played API server evict pods, unless blocked holds true.
func evictable(w *world, blocked *atomic.Bool) {
	w.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := a.(clienttesting.CreateAction)
		if !ok || a.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		eviction, ok := create.GetObject().(*policyv1.Eviction)
		if !ok {
			return true, nil, errors.New("no eviction")
		}
		if blocked.Load() {
			return true, nil, apierrors.NewTooManyRequests("the budget does not allow it", 0)
		}
		if len(eviction.DeleteOptions.DryRun) > 0 {
			return true, nil, nil
		}
		return true, nil, w.client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), a.GetNamespace(), eviction.Name)
	})
}

// An eviction is carried out by the eviction API, and waits for its budget: before
// the pod begins to drain, and after.
func TestEviction(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	var blocked atomic.Bool
	evictable(w, &blocked)
	blocked.Store(true)
	response := w.evicts(t, "jane", "web-0")
	if response.Allowed || response.Result.Code != 429 || !strings.Contains(response.Result.Message, "the budget does not allow it") {
		t.Errorf("answered %+v", response)
	}
	if w.pod(t, "web-0").Annotations[gate.Recorded] != "" {
		t.Error("an eviction that its budget forbids is recorded")
	}
	blocked.Store(false)
	if response := w.evicts(t, "jane", "web-0"); response.Allowed || response.Result.Details != nil {
		t.Errorf("answered %+v", response)
	}
	sidecar.drains(t)
	blocked.Store(true)
	sidecar.become("drained")
	eventually(t, "the pod is let go", func() bool {
		r := gate.RequestOn(w.pod(t, "web-0"))
		return r != nil && r.Released == "drained"
	})
	if response := w.evicts(t, "somebody else", "web-0"); !response.Allowed {
		t.Errorf("a drained pod's eviction is denied: %+v", response) // its budget is the API server's business
	}
	blocked.Store(false)
	eventually(t, "the pod is evicted", func() bool { return w.pod(t, "web-0") == nil })
	if n := w.actions("delete pods"); n != 0 {
		t.Errorf("%d deletions", n)
	}
}

// Two pods of one budget do not begin to drain at once: the second one is not
// asked before the first one is seen not to be ready.
func TestEvictionsOfOneBudget(t *testing.T) {
	one, two := newSidecar(t), newSidecar(t)
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team"},
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	w := start(t, nil, one.at(t, running("web-0")), two.at(t, running("web-1")), budget)
	var blocked atomic.Bool
	evictable(w, &blocked)
	w.evicts(t, "jane", "web-0")
	response := w.evicts(t, "jane", "web-1")
	if response.Allowed || !strings.Contains(response.Result.Message, "web-0") || w.pod(t, "web-1").Annotations[gate.Recorded] != "" {
		t.Errorf("answered %+v", response)
	}
	unready := w.pod(t, "web-0")
	unready.Status.Conditions[0].Status = corev1.ConditionFalse
	if _, err := w.client.CoreV1().Pods("team").UpdateStatus(t.Context(), unready, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second one is recorded", func() bool {
		w.evicts(t, "jane", "web-1")
		return w.pod(t, "web-1").Annotations[gate.Recorded] != ""
	})
}

// Removing the annotation takes the drain back, also if it was removed while no
// gate ran.
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

// A pod that loses the label while it is held is not held any longer. (The played
// API server does not tell watchers with a selector of that, so the test does what
// a real one does: to them the pod is deleted.)
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

// A request that was recorded is carried out by whichever gate comes later, and
// two of them delete once.
func TestRestart(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
	w.stop()
	sidecar.become("serving") // as if nothing had been done yet
	join(t, w.client, nil)
	join(t, w.client, nil)
	sidecar.drains(t)
	sidecar.become("drained")
	eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
}

// A sidecar that has gone does not hold its pod for ever; one that was restarted
// and has forgotten its drain is asked again.
func TestSidecars(t *testing.T) {
	for name, c := range map[string]struct {
		gone    time.Duration
		sidecar func(s *fakeSidecar, pod *corev1.Pod)
		why     string
	}{
		"gone":         {time.Second, func(s *fakeSidecar, _ *corev1.Pod) { s.server.Close() }, "the sidecar could not be asked"},
		"no address":   {time.Second, func(_ *fakeSidecar, pod *corev1.Pod) { pod.Status.PodIP = "" }, "the sidecar could not be asked"},
		"wrong token":  {time.Second, func(s *fakeSidecar, _ *corev1.Pod) { s.token = "x" }, "the sidecar could not be asked"},
		"its token":    {time.Hour, func(s *fakeSidecar, pod *corev1.Pod) { s.token = "x"; setToken(pod); drainsSoon(s) }, "drained"},
		"restarted":    {time.Hour, func(s *fakeSidecar, _ *corev1.Pod) { go func() { <-s.called; s.become("serving"); drainsSoon(s) }() }, "drained"},
		"expired once": {time.Hour, func(s *fakeSidecar, _ *corev1.Pod) { s.become("expired"); drainsSoon(s) }, "drained"},
	} {
		t.Run(name, func(t *testing.T) {
			sidecar := newSidecar(t)
			pod := sidecar.at(t, running("web-0"))
			c.sidecar(sidecar, pod)
			w := start(t, func(config *gate.Config) { config.Gone = c.gone }, pod)
			w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
			eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
			saw := ""
			for len(w.events.Events) > 0 {
				saw += <-w.events.Events + "\n"
			}
			if !strings.Contains(saw, "GateOpened "+c.why) {
				t.Errorf("events: %s", saw)
			}
		})
	}
}

func setToken(pod *corev1.Pod) {
	pod.Spec.InitContainers[0].Env = []corev1.EnvVar{{Name: "LASTCALL_TOKEN", Value: "x"}}
}

func drainsSoon(s *fakeSidecar) {
	go func() { <-s.called; s.become("drained") }()
}

// After its time a pod is let go or held, as its annotation says.
func TestTimeout(t *testing.T) {
	for _, c := range []struct{ after, then, event string }{
		{"1ms", "release", "GateOpened not drained within 1ms"},
		{"1ms", "", "GateHolding"},
		{"soon", "release", "GateMisconfigured"},
		{"1ms", "let go", "GateMisconfigured"},
	} {
		t.Run(c.after+" "+c.then, func(t *testing.T) {
			pod := newSidecar(t).at(t, running("web-0"))
			pod.Annotations[gate.Timeout], pod.Annotations[gate.OnTimeout] = c.after, c.then
			w := start(t, nil, pod)
			w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
			late := time.After(patience)
			for saw := ""; !strings.Contains(saw, c.event); {
				select {
				case saw = <-w.events.Events:
				case <-late:
					t.Fatalf("no event %s", c.event)
				}
			}
			if opened := c.then == "release" && c.after != "soon"; !opened && w.pod(t, "web-0") == nil {
				t.Error("it is deleted")
			}
			if c.event == "GateHolding" {
				var text strings.Builder
				w.Metrics.Write(&text)
				if !strings.Contains(text.String(), "lastcall_gate_overdue_pods 1\n") {
					t.Errorf("metrics:\n%s", &text)
				}
			}
		})
	}
}

// A ReplicaSet that is scaled from 6 to 3 has three pods drained, whichever it
// asks for; when it is scaled up again, they serve again.
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
	const controller = "system:serviceaccount:kube-system:replicaset-controller"
	for range 3 { // it asks again and again, each time for others
		for name := range sidecars {
			if response := w.asks(t, controller, name, &metav1.DeleteOptions{}); response.Allowed {
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

// Whoever asks by name does not hit the successor of the pod it has asked for.
func TestSuccessor(t *testing.T) {
	sidecar := newSidecar(t)
	w := start(t, nil, sidecar.at(t, running("web-0")))
	var never atomic.Bool
	evictable(w, &never)
	w.evicts(t, "jane", "web-0")
	sidecar.drains(t)
	sidecar.become("drained")
	eventually(t, "the pod is evicted", func() bool { return w.pod(t, "web-0") == nil })
	sidecar.become("serving")
	next := sidecar.at(t, running("web-0"))
	next.UID = "next"
	if _, err := w.client.CoreV1().Pods("team").Create(t.Context(), next, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gate has seen that it is gone", func() bool {
		response := w.evicts(t, "jane", "web-0")
		return !response.Allowed && response.Result.Code == 404
	})
}

// A request that can never be recorded does not make its pod undeletable.
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
