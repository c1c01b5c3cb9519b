package gate

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// carryOut deletes or evicts the pod, as requested. It is no error if another replica
// or the user has already done so. The returned duration is the delay before the next
// attempt; 0 if none is needed.
func (g *Gate) carryOut(ctx context.Context, pod *corev1.Pod, r *Request) (time.Duration, error) {
	if strings.HasPrefix(r.Released, "drained") {
		// An eviction may wait for its budget for a long time. If the drain is canceled
		// at the sidecar meanwhile, the release is canceled too.
		if s, err := g.sidecars.status(ctx, pod); err == nil && s.Phase == "serving" {
			held := *r
			held.Released = ""
			return 0, g.record(ctx, pod, &held)
		}
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if r.Verb == Evict {
		// Another replica may have evicted the pod already. If a new pod has the same
		// name, the API server would retry the eviction for 10 s.
		now, err := g.live(call, pod.Namespace, pod.Name)
		if err != nil || now == nil || now.UID != pod.UID || now.DeletionTimestamp != nil {
			return 0, err
		}
	}
	err := g.send(call, pod, r)
	switch {
	case err == nil:
		g.Metrics.carriedOut(r.Verb)
		g.Log.Info("carried out", "verb", r.Verb, "pod", keyOf(pod), "uid", pod.UID)
		g.Events.Eventf(pod, corev1.EventTypeNormal, "GateOpened", "%s: %s as %s asked", r.Released, r.Verb, r.By[0])
		return 0, nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return 0, nil
	case apierrors.IsTooManyRequests(err) && r.Verb == Evict:
		g.Log.Info("an eviction waits for its budget", "pod", keyOf(pod), "error", err.Error())
		// A drained pod becomes unready some moments later, and the budget then no
		// longer counts it. A pod that stays ready has no readiness probe that reports
		// the drain.
		if isReady(pod) && time.Since(r.At) >= unseen {
			return evictEvery, g.giveBack(call, pod)
		}
		return evictEvery, nil
	default:
		return 0, fmt.Errorf("asking to %s the pod: %w", r.Verb, err)
	}
}

// send sends the recorded request to the API server.
func (g *Gate) send(ctx context.Context, pod *corev1.Pod, r *Request) error {
	if r.Verb == Evict {
		return g.Client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}, DeleteOptions: r.options(),
		})
	}
	return g.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *r.options())
}
