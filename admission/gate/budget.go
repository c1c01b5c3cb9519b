package gate

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// giveBack gives a pod that is ready although it has drained back to its budgets,
// which allow its eviction then: the API server takes it from them again.
func (g *Gate) giveBack(ctx context.Context, pod *corev1.Pod) error {
	api := g.Client.PolicyV1().PodDisruptionBudgets(pod.Namespace)
	budgets, err := api.List(ctx, metav1.ListOptions{Limit: 500})
	if err != nil {
		return fmt.Errorf("reading the PodDisruptionBudgets of %s: %w", pod.Namespace, err)
	}
	for i := range budgets.Items {
		budget := &budgets.Items[i]
		selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
		if _, taken := budget.Status.DisruptedPods[pod.Name]; !taken || err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		delete(budget.Status.DisruptedPods, pod.Name)
		budget.Status.DisruptionsAllowed++
		if _, err := api.UpdateStatus(ctx, budget, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
			return fmt.Errorf("giving a pod back to PodDisruptionBudget %s/%s: %w", budget.Namespace, budget.Name, err)
		}
	}
	return nil
}

// takeFrom takes the pod from what the budget allows, as the API server does when
// it evicts one: each replica of the gate knows only of the drains that it has
// begun itself, and two that begin at once would leave none of the pods ready,
// and none that may be evicted. Kubernetes' controller counts the pod as disrupted
// from then on, for 2 minutes or until it is deleted; by then it is not ready. It
// returns a denial if the budget allows no more.
func (g *Gate) takeFrom(ctx context.Context, a *Ask, budget *policyv1.PodDisruptionBudget) *Decision {
	if !isReady(a.Pod) {
		return nil // it is not counted
	}
	api := g.Client.PolicyV1().PodDisruptionBudgets(a.Pod.Namespace)
	for range attempts {
		if _, taken := budget.Status.DisruptedPods[a.Pod.Name]; taken {
			return nil
		}
		if budget.Status.DisruptionsAllowed <= 0 || budget.Status.ObservedGeneration < budget.Generation {
			break
		}
		budget.Status.DisruptionsAllowed--
		if budget.Status.DisruptedPods == nil {
			budget.Status.DisruptedPods = map[string]metav1.Time{}
		}
		budget.Status.DisruptedPods[a.Pod.Name] = metav1.NewTime(a.Now)
		_, err := api.UpdateStatus(ctx, budget, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			budget, err = api.Get(ctx, budget.Name, metav1.GetOptions{})
			if err == nil {
				continue
			}
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return g.budgetUnknown(a, err)
		}
		return nil
	}
	return &Decision{Code: http.StatusTooManyRequests, Message: fmt.Sprintf(
		"lastcall: pod %s does not begin to drain: PodDisruptionBudget %s allows no disruption now", a.Pod.Name, budget.Name)}
}
