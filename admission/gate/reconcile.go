package gate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// outOfReach is the state of a sidecar that has failed to answer.
type outOfReach struct {
	since  time.Time
	logged bool
}

// reconcile does the next step for a pod, and returns the delay before the following
// one. 0 means to wait for a change of the pod.
func (g *Gate) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return 0, err
	}
	pod, err := g.pods.Pods(namespace).Get(name)
	if err != nil {
		if pod, err = g.unlabelled(ctx, namespace, name); err != nil {
			return 0, err
		}
	}
	if pod == nil || !isActive(pod) {
		g.forget(key)
		return 0, nil // it is deleted or finished
	}
	request := RequestOn(pod)
	g.Metrics.waiting(key, request)
	switch {
	case request == nil && pod.Annotations[Begun] == string(pod.UID):
		g.forget(key)
		return g.withdraw(ctx, pod)
	case request == nil:
		g.forget(key)
		return 0, nil
	case request.Released != "":
		return g.carryOut(ctx, pod, request)
	case pod.Labels[Label] != "true":
		return g.release(ctx, pod, request, "the label was removed")
	}
	why, again, err := g.drain(ctx, pod, request)
	if why == "" || err != nil {
		return again, err
	}
	return g.release(ctx, pod, request, why)
}

func (g *Gate) forget(key string) {
	g.Metrics.waiting(key, nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.out, key)
	delete(g.held, key)
	delete(g.left, key)
}

// unlabelled returns the pod if it lost its label while it was held, or else nil.
func (g *Gate) unlabelled(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	g.mu.Lock()
	left := g.left[namespace+"/"+name]
	g.mu.Unlock()
	if !left {
		return nil, nil
	}
	return g.live(ctx, namespace, name)
}

// drain makes the sidecar drain. why is the reason to release the pod, or "". again is
// the delay before the next call.
func (g *Gate) drain(ctx context.Context, pod *corev1.Pod, r *Request) (why string, again time.Duration, err error) {
	s, err := g.sidecars.status(ctx, pod)
	if err == nil && (s.Phase == "serving" || s.Phase == "expired" || s.Phase != "drained" && s.Deadline != nil) {
		s, err = g.sidecars.drain(ctx, pod)
	}
	limit, release, wrong := timeout(pod)
	g.overTime(pod, r, limit, release, s.WaitingFor, wrong)
	over := limit > 0 && time.Since(r.At) >= limit
	switch {
	case err != nil:
		if ctx.Err() != nil {
			return "", 0, ctx.Err()
		}
		why, again = g.unreachable(pod, err)
	case s.Phase == "drained":
		why = s.drained()
	default:
		g.mu.Lock()
		delete(g.out, keyOf(pod))
		g.mu.Unlock()
		again = pollEvery
	}
	if why == "" && over && release {
		why = fmt.Sprintf("not drained within %s", limit)
	}
	return why, again, nil
}

// unreachable handles a failed call of a sidecar. why is the reason to release the pod
// if the calls have failed for the time Gone, or else "".
func (g *Gate) unreachable(pod *corev1.Pod, err error) (why string, again time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.out[keyOf(pod)]
	if out == nil {
		out = &outOfReach{since: time.Now()}
		g.out[keyOf(pod)] = out
	}
	if !out.logged {
		out.logged = true
		fix := "the sidecar has to be reachable from the gate's namespace"
		if no := new(refused); errors.As(err, &no) && (no.code == http.StatusUnauthorized || no.code == http.StatusForbidden) {
			fix = "the gate knows only tokens that LASTCALL_TOKEN has literally"
		}
		g.Log.Warn("a sidecar cannot be asked to drain", "pod", keyOf(pod), "error", err.Error())
		g.Events.Eventf(pod, corev1.EventTypeWarning, "GateNoSidecar", "the sidecar cannot be asked to drain: %v; %s. In %s the pod is let go", err, fix, g.Gone)
	}
	if time.Since(out.since) >= g.Gone {
		return fmt.Sprintf("the sidecar could not be asked for %s", g.Gone), 0
	}
	return "", min(2*pollEvery, g.Gone)
}

// overTime emits an Event once for a pod that is held for longer than its annotation
// allows, or whose annotations are invalid.
func (g *Gate) overTime(pod *corev1.Pod, r *Request, limit time.Duration, release bool, waitingFor string, wrong error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := keyOf(pod)
	over := limit > 0 && time.Since(r.At) >= limit && !release
	g.Metrics.holding(key, over)
	if !over && wrong == nil || g.held[key] {
		return
	}
	g.held[key] = true
	switch {
	case wrong != nil:
		g.Events.Eventf(pod, corev1.EventTypeWarning, "GateMisconfigured", "%v", wrong)
	default:
		g.Log.Warn("a pod is held for longer than it should", "pod", key, "limit", limit.String(), "waiting_for", waitingFor)
		g.Events.Eventf(pod, corev1.EventTypeWarning, "GateHolding", "not drained within %s, and held (%s: hold): %s", limit, OnTimeout, waitingFor)
	}
}

// withdraw cancels a drain whose request was removed.
func (g *Gate) withdraw(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	// A new request may have been recorded that this replica has not seen yet.
	now, err := g.live(ctx, pod.Namespace, pod.Name)
	if err != nil || now == nil || now.UID != pod.UID || now.DeletionTimestamp != nil || RequestOn(now) != nil {
		return 0, err
	}
	if err := g.sidecars.takeBack(ctx, now); err != nil {
		return 0, fmt.Errorf("taking the drain back: %w", err)
	}
	if err := g.annotate(ctx, now, map[string]any{Begun: nil}); err != nil {
		return 0, fmt.Errorf("noting that the drain is taken back: %w", err)
	}
	g.Log.Info("taken back", "pod", keyOf(pod))
	g.Events.Eventf(pod, corev1.EventTypeNormal, "GateWithdrawn", "the request was removed: the drain is taken back")
	return 0, nil
}

// release records on the pod that it is no longer held, and carries out the request.
func (g *Gate) release(ctx context.Context, pod *corev1.Pod, r *Request, why string) (time.Duration, error) {
	if !g.wanted(ctx, pod, r) {
		g.Events.Eventf(pod, corev1.EventTypeNormal, "GateUnwanted", "its ReplicaSet no longer has too many pods: the request of %s is dropped", r.By[0])
		return 0, g.annotate(ctx, pod, map[string]any{Recorded: nil})
	}
	released := *r
	released.Released = why
	if err := g.record(ctx, pod, &released); err != nil {
		return 0, fmt.Errorf("noting that the pod is let go: %w", err)
	}
	g.Metrics.released(why)
	g.Log.Info("let go", "pod", keyOf(pod), "uid", pod.UID, "why", why, "after", time.Since(r.At).String())
	return g.carryOut(ctx, pod, &released)
}

// wanted reports whether the pod should still be deleted. A ReplicaSet that was scaled
// up again no longer requests the deletion, and would have to replace the pod.
func (g *Gate) wanted(ctx context.Context, pod *corev1.Pod, r *Request) bool {
	if r.Verb != Delete {
		return true
	}
	for _, user := range r.By {
		if !strings.HasSuffix(user, ":replicaset-controller") {
			return true
		}
	}
	surplus, owner, err := g.surplus(ctx, pod)
	if err != nil || owner == nil {
		return true // unknown: the request is carried out
	}
	return surplus > 0
}
