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

// giveBack undoes takeFrom for a pod that is still ready although it has drained.
// Its budgets then allow its eviction, and the API server subtracts the pod itself.
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

// takeFrom subtracts the pod from the disruptions that the budget allows, as the API
// server does for an eviction. It returns a denial if the budget allows no more.
//
// A replica of the gate knows only the drains that it has begun itself. Without
// takeFrom, two replicas could begin a drain at the same moment. Then no pod would be
// ready, and the budget would allow none of their evictions. Kubernetes' disruption
// controller counts the pod as disrupted for 2 minutes or until it is deleted; by then
// the pod is not ready.
func (g *Gate) takeFrom(ctx context.Context, a *Ask, budget *policyv1.PodDisruptionBudget) *Decision {
	if !isReady(a.Pod) {
		return nil // the budget does not count it as healthy
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
