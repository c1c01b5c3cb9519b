package gate

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Recording a request takes the pod out of service at once. The checks in this file
// prevent it while too many other pods are leaving.

// started is a drain that has begun, but that the status of a PodDisruptionBudget may
// not include yet.
type started struct {
	labels labels.Set
	until  time.Time
}

// unseen is how long a pod that begins to drain may still look ready.
const unseen = 10 * time.Second

// controls reports whether a user is one of Kubernetes' own controllers.
func controls(user string) bool {
	return strings.HasPrefix(user, "system:serviceaccount:kube-system:") || strings.HasPrefix(user, "system:kube-")
}

// notNow returns a decision that replaces the recording of the request: mostly a
// denial, if the pod must not begin to drain now. It returns nil if the pod may drain.
func (g *Gate) notNow(ctx context.Context, a *Ask) *Decision {
	if a.Verb == Evict {
		return g.overBudget(ctx, a)
	}
	return g.overSurplus(ctx, a)
}

// noteStart remembers a drain that begins until the API server's objects reflect it.
func (g *Gate) noteStart(a *Ask) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, s := range g.starting {
		if a.Now.After(s.until) {
			delete(g.starting, key)
		}
	}
	g.starting[keyOf(a.Pod)] = started{labels.Set(a.Pod.Labels), a.Now.Add(unseen)}
}

// overBudget asks the API server, by a dry run, whether it would evict the pod. The
// check is necessary because the API server calls the webhook before it checks
// PodDisruptionBudgets, and because a draining pod is as unavailable as an evicted one.
func (g *Gate) overBudget(ctx context.Context, a *Ask) *Decision {
	client := g.Client.PolicyV1()
	err := client.Evictions(a.Pod.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: a.Pod.Name, Namespace: a.Pod.Namespace},
		DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}, Preconditions: &metav1.Preconditions{UID: &a.Pod.UID}},
	})
	switch {
	case err == nil:
	case apierrors.IsTooManyRequests(err):
		return &Decision{Code: http.StatusTooManyRequests, Message: fmt.Sprintf("lastcall: pod %s does not begin to drain: %v", a.Pod.Name, err)}
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return &Decision{Allow: true, Why: "no such pod"}
	case apierrors.IsForbidden(err):
		// The gate could never evict the pod, so a denial would hold it forever.
		g.Log.Error("an eviction is let through: the gate is not allowed to evict", "pod", keyOf(a.Pod), "error", err.Error())
		return &Decision{Allow: true, Why: "unrecordable", Warning: fmt.Sprintf("lastcall: let through undrained: %v", err)}
	default:
		return g.budgetUnknown(a, err)
	}
	budgets, err := client.PodDisruptionBudgets(a.Pod.Namespace).List(ctx, metav1.ListOptions{Limit: 500})
	if err != nil {
		return g.budgetUnknown(a, err)
	}
	for i := range budgets.Items {
		selector, err := metav1.LabelSelectorAsSelector(budgets.Items[i].Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(a.Pod.Labels)) {
			continue
		}
		if other := g.startingIn(a, selector); other != "" {
			return &Decision{Code: http.StatusTooManyRequests, Message: fmt.Sprintf(
				"lastcall: pod %s does not begin to drain before PodDisruptionBudget %s counts pod %s as disrupted, which has just begun to", a.Pod.Name, budgets.Items[i].Name, other)}
		}
		if not := g.takeFrom(ctx, a, &budgets.Items[i]); not != nil {
			return not
		}
	}
	return nil
}

// budgetUnknown denies an eviction with the API server's error. For example, the API
// server never evicts a pod that two budgets select, so its drain would be useless.
func (g *Gate) budgetUnknown(a *Ask, err error) *Decision {
	g.Log.Warn("cannot find out whether a budget allows an eviction", "pod", keyOf(a.Pod), "error", err.Error())
	return &Decision{Code: http.StatusInternalServerError, Message: fmt.Sprintf(
		"lastcall: pod %s does not begin to drain: cannot find out whether a PodDisruptionBudget allows its eviction: %v", a.Pod.Name, err)}
}

// startingIn returns the name of another pod in the namespace that matches selector
// and has begun to drain, but is still ready. It returns "" if there is none.
func (g *Gate) startingIn(a *Ask, selector labels.Selector) string {
	pods, err := g.pods.Pods(a.Pod.Namespace).List(selector)
	if err != nil {
		return ""
	}
	recent := func(pod *corev1.Pod) bool {
		r := RequestOn(pod)
		return r != nil && a.Now.Sub(r.At) < unseen
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, pod := range pods {
		_, own := g.starting[keyOf(pod)]
		if pod.Name != a.Pod.Name && pod.DeletionTimestamp == nil && isReady(pod) && (recent(pod) || own && a.Now.Before(g.starting[keyOf(pod)].until)) {
			return pod.Name
		}
	}
	return ""
}

// overSurplus returns a denial if a ReplicaSet already drains as many pods as it has
// too many. Its controller may choose other pods at each attempt.
func (g *Gate) overSurplus(ctx context.Context, a *Ask) *Decision {
	if !controls(a.User) {
		return nil
	}
	surplus, owner, err := g.surplus(ctx, a.Pod)
	if err != nil {
		g.Log.Warn("cannot find out how many pods a ReplicaSet has too many", "pod", keyOf(a.Pod), "error", err.Error())
		return nil
	}
	if owner == nil || surplus <= 0 {
		return nil // the controller has another reason for the deletion
	}
	draining, err := g.draining(ctx, owner, a.Pod.Namespace)
	if err != nil {
		return &Decision{Code: http.StatusTooManyRequests, Message: fmt.Sprintf(
			"lastcall: pod %s does not begin to drain: cannot find out how many other pods drain: %v", a.Pod.Name, err)}
	}
	if draining < surplus {
		return nil
	}
	return &Decision{Code: http.StatusTooManyRequests, Message: fmt.Sprintf(
		"lastcall: pod %s does not begin to drain: ReplicaSet %s has %d pods too many, and %d are being drained", a.Pod.Name, owner.Name, surplus, draining)}
}

// draining returns the number of the owner's pods with a recorded request. It asks the
// API server and not the cache: a controller retries a denied deletion within
// milliseconds, for other pods, and another replica of the gate may have recorded the
// first request.
func (g *Gate) draining(ctx context.Context, owner *metav1.OwnerReference, namespace string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	list, err := g.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: Label + "=true"})
	if err != nil {
		return 0, fmt.Errorf("listing the pods of namespace %s: %w", namespace, err)
	}
	n := 0
	for i := range list.Items {
		pod := &list.Items[i]
		if isOf(pod, owner) && RequestOn(pod) != nil {
			n++
		}
	}
	return n, nil
}

// surplus returns the number of excess pods of the pod's ReplicaSet, and the
// ReplicaSet's owner reference, which is nil if the pod has no ReplicaSet.
func (g *Gate) surplus(ctx context.Context, pod *corev1.Pod) (int, *metav1.OwnerReference, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "ReplicaSet" || owner.APIVersion != "apps/v1" {
		return 0, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	set, err := g.Client.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		return 0, owner, fmt.Errorf("reading ReplicaSet %s/%s: %w", pod.Namespace, owner.Name, err)
	}
	want := 1
	if set.Spec.Replicas != nil {
		want = int(*set.Spec.Replicas)
	}
	return max(len(g.podsOf(owner, pod.Namespace)), int(set.Status.Replicas)) - want, owner, nil
}

// podsOf returns the active pods of an owner that the gate watches.
func (g *Gate) podsOf(owner *metav1.OwnerReference, namespace string) []*corev1.Pod {
	pods, err := g.pods.Pods(namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		return !isOf(pod, owner)
	})
}

// isOf reports whether a pod is active and belongs to the owner.
func isOf(pod *corev1.Pod, owner *metav1.OwnerReference) bool {
	of := metav1.GetControllerOf(pod)
	return isActive(pod) && of != nil && of.UID == owner.UID
}
