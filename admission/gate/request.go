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

// Verb is the kind of a request: Delete or Evict.
type Verb string

// The verbs.
const (
	Delete Verb = "delete"
	Evict  Verb = "evict"
)

// mostAskers limits the number of users in a Request.
const mostAskers = 8

// Request is a request to delete or evict a pod, in the form recorded on the pod.
type Request struct {
	// UID is the pod's. A request with another UID was copied from another pod or
	// comes from a pod template, and is ignored.
	UID  types.UID `json:"uid"`
	Verb Verb      `json:"verb"`
	// The given options. A precondition on the resource version is not kept, because
	// recording the request changes the version.
	GracePeriodSeconds *int64                      `json:"gracePeriodSeconds,omitempty"`
	PropagationPolicy  *metav1.DeletionPropagation `json:"propagationPolicy,omitempty"`
	OrphanDependents   *bool                       `json:"orphanDependents,omitempty"`
	// By lists the users who sent the request, in the order of their requests. If a
	// user's verb differs from Verb, it follows the name: "jane (evict)".
	By []string  `json:"by"`
	At time.Time `json:"at"` // of the first request
	// Released is the reason why the pod is no longer held; empty while it is held.
	Released string `json:"released,omitempty"`
}

// RequestOn returns the request that is recorded on the pod, or nil. It ignores an
// annotation that is invalid or belongs to another pod.
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

// newRequest returns the Request to record for an Ask.
func newRequest(a *Ask) *Request {
	r := &Request{UID: a.Pod.UID, Verb: a.Verb, By: []string{a.User}, At: a.Now.UTC().Truncate(time.Second)}
	r.GracePeriodSeconds = a.Options.GracePeriodSeconds
	r.PropagationPolicy = a.Options.PropagationPolicy
	r.OrphanDependents = a.Options.OrphanDependents //nolint:staticcheck // deprecated, but users may still send it
	return r
}

// asker returns the entry in By for the Ask's user.
func (r *Request) asker(a *Ask) string {
	if a.Verb == r.Verb {
		return a.User
	}
	return fmt.Sprintf("%s (%s)", a.User, a.Verb)
}

// with returns a copy of the request with the Ask's user added, or nil if the user is
// already in it or it is full.
func (r *Request) with(a *Ask) *Request {
	asker := r.asker(a)
	if slices.Contains(r.By, asker) || len(r.By) >= mostAskers {
		return nil
	}
	more := *r
	more.By = append(slices.Clone(r.By), asker)
	return &more
}

// without returns a copy of the request without the Ask's user.
func (r *Request) without(a *Ask) *Request {
	less, asker := *r, r.asker(a)
	less.By = slices.DeleteFunc(slices.Clone(r.By), func(by string) bool { return by == asker })
	return &less
}

// options returns the options for the deletion or eviction.
func (r *Request) options() *metav1.DeleteOptions {
	uid := r.UID
	return &metav1.DeleteOptions{
		GracePeriodSeconds: r.GracePeriodSeconds,
		PropagationPolicy:  r.PropagationPolicy,
		OrphanDependents:   r.OrphanDependents, //nolint:staticcheck // deprecated, but users may still send it
		Preconditions:      &metav1.Preconditions{UID: &uid},
	}
}

// patch returns a merge patch that sets annotations. It applies only to this version
// of the pod. A nil value removes an annotation.
func patch(pod *corev1.Pod, annotations map[string]any) ([]byte, error) {
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pod.UID, "resourceVersion": pod.ResourceVersion, "annotations": annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("writing the patch of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return text, nil
}

// annotations returns the annotations that record the request.
func (r *Request) annotations() (map[string]any, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	return map[string]any{Recorded: string(text), Begun: string(r.UID)}, nil
}
