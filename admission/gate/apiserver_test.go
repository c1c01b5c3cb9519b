package gate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lastcall/admission/gate"
	"lastcall/admission/internal/apiservertest"
)

// TestAPIServer goes through what is denied and what comes of it.
func TestAPIServer(t *testing.T) {
	for _, version := range apiservertest.Versions() {
		t.Run(version.Name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, version)
			t.Run("a person's deletion waits and succeeds", c.deletion)
			t.Run("an eviction is carried out", c.eviction)
			t.Run("a budget is asked first", c.budget)
			t.Run("let through without being asked", c.letThrough)
			t.Run("all pods of a namespace", c.collection)
			t.Run("the request is the gate's to write", c.forgery)
		})
	}
}

// deletion is one of kubectl delete, which client-go sends again when it is told to.
func (c *cluster) deletion(t *testing.T) {
	sidecar := newSidecar(t)
	c.run(t, sidecar, "deleted", nil)
	drained := time.AfterFunc(time.Hour, func() {})
	defer drained.Stop()
	go func() {
		<-sidecar.called
		drained = time.AfterFunc(13*time.Second, func() { sidecar.become("drained") }) // longer than one call waits
	}()
	seven := int64(7)
	if err := c.deletes(t, "deleted", metav1.DeleteOptions{GracePeriodSeconds: &seven}); err != nil {
		t.Fatal(err)
	}
	pod := c.pod(t, "deleted")
	if pod == nil || pod.DeletionTimestamp == nil || *pod.DeletionGracePeriodSeconds != 7 || gate.RequestOn(pod).Released != "drained" {
		t.Errorf("the pod is %+v", pod)
	}
	// The kubelet's last step is not asked about.
	asked, zero := c.asked.Load(), int64(0)
	if err := c.deletes(t, "deleted", metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID}}); err != nil || c.pod(t, "deleted") != nil {
		t.Errorf("the kubelet's deletion: %v", err)
	}
	if n := c.asked.Load() - asked; n != 0 {
		t.Errorf("the API server asked %d times about the kubelet's deletion", n)
	}
}

func (c *cluster) eviction(t *testing.T) {
	sidecar := newSidecar(t)
	c.run(t, sidecar, "evicted", nil)
	for range 3 {
		if err := c.evicts(t, "evicted"); !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "waits") {
			t.Fatalf("answered %v", err)
		}
	}
	sidecar.drains(t)
	if pod := c.pod(t, "evicted"); pod.DeletionTimestamp != nil {
		t.Fatal("it is evicted before it is drained")
	}
	sidecar.become("drained")
	began := time.Now()
	eventually(t, "the pod is evicted", func() bool { return c.pod(t, "evicted").DeletionTimestamp != nil })
	t.Logf("evicted %s after it has drained", time.Since(began))
	conditions := fmt.Sprint(c.pod(t, "evicted").Status.Conditions)
	if !strings.Contains(conditions, "EvictionByEvictionAPI") {
		t.Errorf("it was not the eviction API: %s", conditions)
	}
}

// budget: what its PodDisruptionBudget forbids does not take a pod out of service.
func (c *cluster) budget(t *testing.T) {
	sidecar := newSidecar(t)
	c.run(t, sidecar, "budgeted", func(p *corev1.Pod) { p.Labels["app"] = "budgeted" })
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "budget", Namespace: "team"},
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "budgeted"}}}}
	budgets := c.admin.PolicyV1().PodDisruptionBudgets("team")
	created, err := budgets.Create(t.Context(), budget, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	created.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: created.Generation, CurrentHealthy: 1, DesiredHealthy: 1, ExpectedPods: 1}
	if created, err = budgets.UpdateStatus(t.Context(), created, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.evicts(t, "budgeted"); !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "does not begin to drain") {
		t.Errorf("answered %v", err)
	}
	if c.pod(t, "budgeted").Annotations[gate.Recorded] != "" || len(sidecar.called) > 0 {
		t.Error("it drains")
	}
	created.Status.DisruptionsAllowed = 1
	if _, err = budgets.UpdateStatus(t.Context(), created, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the eviction is recorded", func() bool {
		_ = c.evicts(t, "budgeted")
		return c.pod(t, "budgeted").Annotations[gate.Recorded] != ""
	})
	sidecar.drains(t)
	sidecar.become("drained")
	eventually(t, "the pod is evicted", func() bool { return c.pod(t, "budgeted").DeletionTimestamp != nil })
}

// letThrough: of these the API server asks nothing.
func (c *cluster) letThrough(t *testing.T) {
	zero := int64(0)
	asked := c.asked.Load()
	for name, o := range map[string]struct {
		options metav1.DeleteOptions
		change  func(*corev1.Pod)
		phase   corev1.PodPhase
	}{
		"forced":    {options: metav1.DeleteOptions{GracePeriodSeconds: &zero}},
		"dry-run":   {options: metav1.DeleteOptions{DryRun: []string{"All"}}},
		"succeeded": {phase: corev1.PodSucceeded},
		"pending":   {phase: corev1.PodPending},
		"unlabeled": {change: func(p *corev1.Pod) { delete(p.Labels, gate.Label) }},
	} {
		pod := c.run(t, newSidecar(t), name, o.change)
		if o.phase != "" {
			pod.Status.Phase = o.phase
			if _, err := c.admin.CoreV1().Pods("team").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			// A deletion is judged by the API server's cached copy first, which may
			// still be of a pod that runs.
			eventually(t, "the API server's cache has the phase", func() bool {
				cached, err := c.admin.CoreV1().Pods("team").Get(t.Context(), name, metav1.GetOptions{ResourceVersion: "0"})
				return err == nil && cached.Status.Phase == o.phase
			})
		}
		if err := c.deletes(t, name, o.options); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := c.asked.Load() - asked; n != 0 {
		t.Errorf("the API server asked %d times", n)
	}
}

// collection is what deletes a namespace, or kubectl delete pods --all.
func (c *cluster) collection(t *testing.T) {
	var sidecars []*fakeSidecar
	for i := range 3 {
		sidecars = append(sidecars, newSidecar(t))
		c.run(t, sidecars[i], fmt.Sprintf("all-%d", i), func(p *corev1.Pod) { p.Labels["app"] = "all" })
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, s := range sidecars {
		go func() { <-s.called; s.become("drained") }()
	}
	selector := metav1.ListOptions{LabelSelector: "app=all"}
	if err := c.admin.CoreV1().Pods("team").DeleteCollection(ctx, metav1.DeleteOptions{}, selector); err != nil {
		t.Error(err)
	}
	eventually(t, "all are deleted", func() bool {
		for i := range sidecars {
			if c.pod(t, fmt.Sprintf("all-%d", i)).DeletionTimestamp == nil {
				return false
			}
		}
		return true
	})
}

// forgery: whoever may change pods cannot have one deleted by the gate; they can
// take a request back.
func (c *cluster) forgery(t *testing.T) {
	sidecar := newSidecar(t)
	pod := c.run(t, sidecar, "forged", nil)
	pods := c.admin.CoreV1().Pods("team")
	set := func(value string, subresources ...string) error {
		text := fmt.Sprintf(`{"metadata":{"annotations":{"lastcall/gate-request":%s}}}`, value)
		_, err := pods.Patch(t.Context(), "forged", types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresources...)
		return err
	}
	request := fmt.Sprintf("%q", fmt.Sprintf(`{"uid":%q,"verb":"delete","by":["x"],"at":"2026-11-28T12:00:00Z"}`, pod.UID))
	for _, subresources := range [][]string{nil, {"status"}} {
		if err := set(request, subresources...); !apierrors.IsForbidden(err) {
			t.Errorf("%q: %v", subresources, err)
		}
	}
	if err := c.evicts(t, "forged"); !apierrors.IsTooManyRequests(err) {
		t.Fatal(err)
	}
	sidecar.drains(t)
	if err := set("null"); err != nil {
		t.Fatal(err)
	}
	sidecar.is(t, "DELETE /drain")
	if c.pod(t, "forged").DeletionTimestamp != nil {
		t.Error("it is deleted")
	}
}
