package gate_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lastcall/admission/gate"
)

// evictable makes the fake API server evict pods, unless blocked is true.
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

// The gate evicts a pod through the eviction API. The eviction waits for its budget
// before the pod begins to drain, and again after the drain.
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
		t.Errorf("a drained pod's eviction is denied: %+v", response) // the API server checks the budget
	}
	blocked.Store(false)
	eventually(t, "the pod is evicted", func() bool { return w.pod(t, "web-0") == nil })
	if n := w.actions("delete pods"); n != 0 {
		t.Errorf("%d deletions", n)
	}
}

// A pod that stays ready although it has drained is given back to its budget, which
// then allows its eviction. A pod that may still become unready is not given back:
// another pod would begin to drain in its place.
func TestDrainedAndReady(t *testing.T) {
	for name, c := range map[string]struct {
		ago  time.Duration
		back bool
	}{
		"for some moments": {0, false},
		"for a minute":     {time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			sidecar := newSidecar(t)
			sidecar.become("drained")
			pod := sidecar.at(t, running("web-0"))
			pod.Annotations[gate.Begun] = string(pod.UID)
			pod.Annotations[gate.Recorded] = fmt.Sprintf(`{"uid":%q,"verb":"evict","by":["jane"],"at":%q}`, pod.UID, time.Now().Add(-c.ago).UTC().Format(time.RFC3339))
			budget := &policyv1.PodDisruptionBudget{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team"},
				Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
				Status:     policyv1.PodDisruptionBudgetStatus{DisruptedPods: map[string]metav1.Time{"web-0": metav1.Now()}},
			}
			client := fake.NewClientset(pod, budget)
			var blocked atomic.Bool
			blocked.Store(true)
			evictable(&world{client: client}, &blocked)
			w := join(t, client, nil)
			eventually(t, "an eviction was tried", func() bool { return w.actions("create pods/eviction") > 0 })
			if c.back {
				eventually(t, "the pod is given back", func() bool { return w.actions("update poddisruptionbudgets/status") > 0 })
			} else { // the second attempt begins after the first one has finished
				changed := w.pod(t, "web-0")
				changed.Labels["changed"] = "yes"
				if _, err := client.CoreV1().Pods("team").Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				eventually(t, "another eviction was tried", func() bool { return w.actions("create pods/eviction") > 1 })
			}
			now, err := client.PolicyV1().PodDisruptionBudgets("team").Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, taken := now.Status.DisruptedPods["web-0"]; taken == c.back || now.Status.DisruptionsAllowed != map[bool]int32{true: 1}[c.back] {
				t.Errorf("the budget is %+v", now.Status)
			}
		})
	}
}

// If the API server cannot determine whether a budget allows an eviction, the gate returns
// the API server's error, and the pod does not drain.
func TestEvictionsWithoutAnAnswer(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("pods/eviction"), "web-0", errors.New("no such right"))
	for name, c := range map[string]struct {
		verb, resource string
		err            error
		allowed        bool
	}{
		"two budgets select the pod":   {"create", "pods", apierrors.NewInternalError(errors.New("more than one PodDisruptionBudget")), false},
		"the gate may not evict":       {"create", "pods", forbidden, true},
		"budgets cannot be read":       {"list", "poddisruptionbudgets", errors.New("no answer"), false},
		"the budget cannot be written": {"update", "poddisruptionbudgets", errors.New("no answer"), false},
	} {
		t.Run(name, func(t *testing.T) {
			budget := &policyv1.PodDisruptionBudget{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team"},
				Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
				Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1},
			}
			w := start(t, nil, newSidecar(t).at(t, running("web-0")), budget)
			evictable(w, new(atomic.Bool))
			w.client.PrependReactor(c.verb, c.resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
				return c.verb != "create" || a.GetSubresource() == "eviction", nil, c.err
			})
			response := w.evicts(t, "jane", "web-0")
			if response.Allowed != c.allowed || !c.allowed && (response.Result.Code != 500 || !strings.Contains(response.Result.Message, c.err.Error())) || c.allowed && len(response.Warnings) == 0 {
				t.Errorf("answered %+v", response)
			}
			if w.pod(t, "web-0").Annotations[gate.Recorded] != "" {
				t.Error("it is recorded")
			}
		})
	}
}

// Two pods of one budget do not begin to drain at the same time. The second one waits
// until the first one is seen as not ready.
func TestEvictionsOfOneBudget(t *testing.T) {
	one, two := newSidecar(t), newSidecar(t)
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team"},
		Spec:   policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 2}}
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

// A pod that begins to drain is subtracted from its budget. If another replica begins
// a drain at the same moment, the update conflicts, and the gate reads the budget
// again. No more drains begin than the budget allows.
func TestEvictionsAtTwoReplicas(t *testing.T) {
	for name, c := range map[string]struct {
		allowed int32
		taken   bool // another replica has taken a disruption just before
		drains  bool
	}{
		"alone":                         {1, false, true},
		"another one takes the last":    {1, true, false},
		"another one leaves one":        {2, true, true},
		"the budget was used up before": {0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			sidecar := newSidecar(t)
			budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team"},
				Spec:   policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
				Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: c.allowed}}
			w := start(t, nil, sidecar.at(t, running("web-0")), budget)
			evictable(w, new(atomic.Bool))
			budgets := policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
			w.client.PrependReactor("update", "poddisruptionbudgets", func(a clienttesting.Action) (bool, runtime.Object, error) {
				if a.GetSubresource() != "status" || !c.taken {
					return false, nil, nil
				}
				c.taken = false
				other := budget.DeepCopy()
				other.Status.DisruptionsAllowed--
				other.Status.DisruptedPods = map[string]metav1.Time{"web-1": metav1.Now()}
				if err := w.client.Tracker().Update(budgets, other, "team"); err != nil {
					return true, nil, err
				}
				return true, nil, apierrors.NewConflict(budgets.GroupResource(), "web", errors.New("changed"))
			})
			response := w.evicts(t, "jane", "web-0")
			if response.Allowed || response.Result.Code != 429 {
				t.Errorf("answered %+v", response)
			}
			if got := w.pod(t, "web-0").Annotations[gate.Recorded] != ""; got != c.drains {
				t.Errorf("it is recorded: %v, want %v (%s)", got, c.drains, response.Result.Message)
			}
			now, err := w.client.PolicyV1().PodDisruptionBudgets("team").Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, taken := now.Status.DisruptedPods["web-0"]; taken != c.drains || now.Status.DisruptionsAllowed < 0 {
				t.Errorf("the budget is %+v", now.Status)
			}
		})
	}
}
