package gate

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Verb is what was asked.
type Verb string

// The verbs.
const (
	Delete Verb = "delete"
	Evict  Verb = "evict"
)

// mostAskers bounds the users that a request names.
const mostAskers = 8

// Request is what somebody asked to be done with a pod, as it is recorded on it.
type Request struct {
	// UID is the pod's. A request with another one is none of this pod's: it
	// came with a template, or was copied.
	UID  types.UID `json:"uid"`
	Verb Verb      `json:"verb"`
	// The options as they were given. A precondition on the resource version is
	// left out: recording the request changes it.
	GracePeriodSeconds *int64                      `json:"gracePeriodSeconds,omitempty"`
	PropagationPolicy  *metav1.DeletionPropagation `json:"propagationPolicy,omitempty"`
	OrphanDependents   *bool                       `json:"orphanDependents,omitempty"`
	// By is who asked, the first one first. Whoever asked for the other verb is
	// named with it: "jane (evict)".
	By []string  `json:"by"`
	At time.Time `json:"at"` // when it was first asked
	// Released says why the pod is no longer held; empty while it is.
	Released string `json:"released,omitempty"`
}

// RequestOn returns the request that is recorded on the pod, or nil. An annotation
// that cannot be read, or is another pod's, is none.
func RequestOn(pod *corev1.Pod) *Request {
	text, ok := pod.Annotations[Recorded]
	if !ok {
		return nil
	}
	var r Request
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil
	}
	if r.UID != pod.UID || r.UID == "" || (r.Verb != Delete && r.Verb != Evict) {
		return nil
	}
	return &r
}

// newRequest returns what is recorded of an ask.
func newRequest(a *Ask) *Request {
	r := &Request{UID: a.Pod.UID, Verb: a.Verb, By: []string{a.User}, At: a.Now.UTC().Truncate(time.Second)}
	r.GracePeriodSeconds = a.Options.GracePeriodSeconds
	r.PropagationPolicy = a.Options.PropagationPolicy
	r.OrphanDependents = a.Options.OrphanDependents //nolint:staticcheck // deprecated, and what was asked all the same
	return r
}

// asker is how By names who asks.
func (r *Request) asker(a *Ask) string {
	if a.Verb == r.Verb {
		return a.User
	}
	return fmt.Sprintf("%s (%s)", a.User, a.Verb)
}

// with returns the request with another one who asks, or nil if nothing is to be
// added.
func (r *Request) with(a *Ask) *Request {
	asker := r.asker(a)
	if slices.Contains(r.By, asker) || len(r.By) >= mostAskers {
		return nil
	}
	more := *r
	more.By = append(slices.Clone(r.By), asker)
	return &more
}

// without returns the request without one who asked.
func (r *Request) without(a *Ask) *Request {
	less, asker := *r, r.asker(a)
	less.By = slices.DeleteFunc(slices.Clone(r.By), func(by string) bool { return by == asker })
	return &less
}

// options are those with which what was asked is done.
func (r *Request) options() *metav1.DeleteOptions {
	uid := r.UID
	return &metav1.DeleteOptions{
		GracePeriodSeconds: r.GracePeriodSeconds,
		PropagationPolicy:  r.PropagationPolicy,
		OrphanDependents:   r.OrphanDependents, //nolint:staticcheck // deprecated, and what was asked all the same
		Preconditions:      &metav1.Preconditions{UID: &uid},
	}
}

// patch returns the merge patch that sets annotations of exactly this version of
// the pod; nil removes one.
func patch(pod *corev1.Pod, annotations map[string]any) ([]byte, error) {
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pod.UID, "resourceVersion": pod.ResourceVersion, "annotations": annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("writing the patch of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return text, nil
}

// annotations are those that record the request.
func (r *Request) annotations() (map[string]any, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	return map[string]any{Recorded: string(text), Begun: string(r.UID)}, nil
}
