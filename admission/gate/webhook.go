package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lastcall/admission/internal/review"
)

// Webhook returns the handler for reviews of DELETE pods and CREATE pods/eviction.
// Calls that wait are answered when ctx ends.
func (g *Gate) Webhook(ctx context.Context) http.Handler {
	return review.Handler(g.Log, func(call context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return g.answer(ctx, call, r)
	})
}

func (g *Gate) answer(ctx, call context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	limited, cancel := context.WithTimeout(call, callLimit)
	defer cancel()
	a, err := g.askOf(limited, r)
	if err != nil { // without the pod nothing can be decided: allowed, as without the gate
		g.Log.Error("a deletion is let through: its review cannot be read", "pod", r.Namespace+"/"+r.Name, "error", err.Error())
		return respond(&Decision{Allow: true, Why: "unreadable", Warning: fmt.Sprintf("lastcall: let through undrained: %v", err)}, nil)
	}
	d := Decision{Allow: true, Why: "no gate here"}
	if !slices.Contains(g.Never, r.Namespace) {
		d = g.settle(limited, a)
	}
	if d.Code == http.StatusTooManyRequests && a.Verb == Delete && !isMachine(a.User) {
		g.hold(ctx, call, a, &d)
	}
	g.hasLearned(a, &d)
	g.Metrics.decided(a.Verb, &d)
	if !d.Allow {
		g.Log.Info("denied", "verb", a.Verb, "pod", keyOf(a.Pod), "user", a.User, "code", d.Code)
	}
	return respond(&d, a)
}

// attempts is the maximum number of attempts to update an object that others change
// at the same time.
const attempts = 5

// settle decides on an Ask, and records the request on the pod if that is needed.
func (g *Gate) settle(ctx context.Context, a *Ask) Decision {
	d := Decide(a)
	if d.Allow || d.Record == nil {
		return d
	}
	if d.New {
		g.recording.Lock()
		defer g.recording.Unlock()
		if not := g.notNow(ctx, a); not != nil {
			return *not
		}
	}
	for range attempts {
		err := g.record(ctx, a.Pod, d.Record)
		switch {
		case err == nil && d.New:
			g.noteStart(a)
			g.Log.Info("recorded", "verb", a.Verb, "pod", keyOf(a.Pod), "uid", a.Pod.UID, "user", a.User)
			g.Events.Eventf(a.Pod, corev1.EventTypeNormal, "GateWaiting", "asked by %s to %s the pod: it is drained first", a.User, a.Verb)
			return d
		case err == nil:
			return d
		case apierrors.IsNotFound(err):
			return Decision{Allow: true, Why: "no such pod"}
		case apierrors.IsForbidden(err) || apierrors.IsInvalid(err):
			// A retry would never succeed, so a denial would hold the pod forever.
			g.Log.Error("a deletion is let through: it cannot be recorded", "pod", keyOf(a.Pod), "error", err.Error())
			return Decision{Allow: true, Why: "unrecordable", Warning: fmt.Sprintf("lastcall: let through undrained: %v", err)}
		case !apierrors.IsConflict(err):
			g.Log.Warn("recording a request failed", "pod", keyOf(a.Pod), "error", err.Error())
			d.Message += fmt.Sprintf(" (it was not recorded, ask again: %v)", err)
			return d
		}
		now, err := g.live(ctx, a.Pod.Namespace, a.Pod.Name)
		if err != nil {
			d.Message += fmt.Sprintf(" (it was not recorded, ask again: %v)", err)
			return d
		}
		if now != nil && now.UID != a.Pod.UID { // the Ask was about the previous pod
			return successor(a)
		}
		a.Pod = now
		if d = Decide(a); d.Allow || d.Record == nil {
			return d
		}
	}
	d.Message += " (it was not recorded, ask again: too many conflicting updates of the pod)"
	return d
}

func (g *Gate) record(ctx context.Context, pod *corev1.Pod, r *Request) error {
	annotations, err := r.annotations()
	if err != nil {
		return err
	}
	return g.annotate(ctx, pod, annotations)
}

func (g *Gate) annotate(ctx context.Context, pod *corev1.Pod, annotations map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	text, err := patch(pod, annotations)
	if err != nil {
		return err
	}
	_, err = g.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, text, metav1.PatchOptions{})
	return err
}

// live reads the pod from the API server. It returns nil if there is none.
func (g *Gate) live(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	pod, err := g.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", namespace, name, err)
	}
	return pod, nil
}

// hold waits up to Hold until the pod is released or deleted, and then changes the
// decision.
func (g *Gate) hold(ctx, call context.Context, a *Ask, d *Decision) {
	select {
	case g.holds <- struct{}{}:
		defer func() { <-g.holds }()
	default:
		return // too many calls are waiting already
	}
	end := time.NewTimer(g.Hold)
	defer end.Stop()
	key := keyOf(a.Pod)
	for {
		changed := g.change(key)
		pod, err := g.pods.Pods(a.Pod.Namespace).Get(a.Pod.Name)
		switch {
		case err != nil || pod.UID != a.Pod.UID || pod.DeletionTimestamp != nil:
			// The API server reads the pod again before it deletes it, and then calls the
			// webhook again.
			*d = Decision{Allow: true, Why: terminating}
			return
		default:
			if r := RequestOn(pod); r != nil && r.Released != "" {
				*d = Decision{Allow: true, Why: r.Released}
				return
			}
		}
		select {
		case <-changed:
		case <-end.C:
			return
		case <-ctx.Done():
			return
		case <-call.Done():
			return
		}
	}
}

// askOf returns the Ask in an admission request.
func (g *Gate) askOf(ctx context.Context, r *admissionv1.AdmissionRequest) (*Ask, error) {
	a := &Ask{Verb: Delete, User: r.UserInfo.Username, DryRun: r.DryRun != nil && *r.DryRun, Own: g.Own, Now: time.Now()}
	a.Before = g.beforeOf(r.Namespace+"/"+r.Name, a.Now)
	switch {
	case r.Resource.Resource != "pods":
		return nil, fmt.Errorf("unexpected resource %s", r.Resource.Resource)
	case r.Operation == admissionv1.Delete && r.SubResource == "":
		var pod corev1.Pod
		if err := errors.Join(read(r.OldObject.Raw, &pod), read(r.Options.Raw, &a.Options)); err != nil {
			return nil, fmt.Errorf("reading the pod and the options: %w", err)
		}
		if pod.UID != "" {
			a.Pod = &pod
		}
		a.Ending = a.User == allControllers && g.isEnding(ctx, r.Namespace)
		return a, nil
	case r.Operation == admissionv1.Create && r.SubResource == "eviction":
		var eviction policyv1.Eviction
		if err := read(r.Object.Raw, &eviction); err != nil {
			return nil, fmt.Errorf("reading the Eviction: %w", err)
		}
		a.Verb = Evict
		if eviction.DeleteOptions != nil {
			a.Options = *eviction.DeleteOptions
		}
		var err error
		a.Pod, err = g.live(ctx, r.Namespace, r.Name) // the Eviction does not contain the pod
		return a, err
	}
	return nil, fmt.Errorf("unexpected request: %s of %s/%s", r.Operation, r.Resource.Resource, r.SubResource)
}

// isEnding reports whether a namespace is being deleted.
func (g *Gate) isEnding(ctx context.Context, name string) bool {
	namespace, err := g.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	return err == nil && namespace.DeletionTimestamp != nil
}

func read(text []byte, into any) error {
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, into)
}

func respond(d *Decision, a *Ask) *admissionv1.AdmissionResponse {
	r := &admissionv1.AdmissionResponse{Allowed: d.Allow}
	if d.Warning != "" {
		r.Warnings = []string{d.Warning}
	}
	if d.Allow {
		return r
	}
	r.Result = &metav1.Status{Status: metav1.StatusFailure, Code: d.Code, Message: d.Message, Reason: metav1.StatusReasonTooManyRequests}
	switch d.Code {
	case http.StatusNotFound:
		r.Result.Reason = metav1.StatusReasonNotFound
	case http.StatusInternalServerError:
		r.Result.Reason = metav1.StatusReasonInternalError
	}
	// With RetryAfterSeconds, client-go repeats the request up to ten times. It is not
	// set for controllers, because it would block one of their workers meanwhile, nor
	// for evictions, because kubectl drain repeats them itself.
	if d.Code == http.StatusTooManyRequests && a.Verb == Delete && !controls(a.User) {
		r.Result.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	}
	return r
}
