package gate

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Ask is one request that the API server has been sent.
type Ask struct {
	Verb    Verb
	Options metav1.DeleteOptions
	User    string
	DryRun  bool
	// Pod is the pod as it is; nil if there is none.
	Pod *corev1.Pod
	// Ending reports that the pod's whole namespace is being deleted.
	Ending bool
	// Own is the user name of the gate itself.
	Own string
	// Before is the request that a pod of the same name was deleted for a moment
	// ago, with those who have not learned yet that it is gone, or nil.
	Before *Request
	Now    time.Time
}

// Decision is the answer to an Ask.
type Decision struct {
	Allow bool
	// Why is the reason for an allowance, in a few words.
	Why string
	// Code and Message are those of a denial.
	Code    int32
	Message string
	// Record is to be written to the pod before the answer; nil if the pod stays
	// as it is. New reports that no request was recorded before.
	Record *Request
	New    bool
	// Warning is for whoever asked.
	Warning string
}

// Decide decides on an ask. It depends on nothing but its argument. Whatever is
// let through for good the API server does not even ask about, see
// deploy/admission/gate/webhook.yaml; Decide does not rely on that.
func Decide(a *Ask) Decision {
	why := passes(a)
	if (why == "" || why == neverStarted && sidecarOf(a.Pod) != nil) && repeats(a) {
		return successor(a)
	}
	if why != "" {
		d := Decision{Allow: true, Why: why}
		if why == noSidecar {
			d.Warning = fmt.Sprintf("lastcall: the label %s of pod %s has no effect: it has no container named %s", Label, a.Pod.Name, sidecarName)
		}
		return d
	}
	recorded := RequestOn(a.Pod)
	switch {
	case recorded == nil:
		d := denied(a, a.Now)
		d.Record, d.New = newRequest(a), true
		return d
	case recorded.Released != "":
		return Decision{Allow: true, Why: recorded.Released}
	default:
		d := denied(a, recorded.At)
		d.Record = recorded.with(a)
		return d
	}
}

// Remember is how long a pod that is gone is remembered: whoever asked for it
// under its name may ask once more without having learned that it is gone, and
// would hit its successor. kubectl drain asks every 5 s.
const Remember = 10 * time.Second

// repeats reports whether an ask may be another attempt of one that the pod of
// the same name before was deleted for: by the same user, with the same verb. An
// ask that names the pod's UID or version is about this pod. So is a deletion by a
// controller, which has seen the pod or made it.
func repeats(a *Ask) bool {
	if a.Pod == nil || a.Before == nil || a.Before.UID == a.Pod.UID {
		return false
	}
	if a.Verb == Delete && controls(a.User) {
		return false
	}
	if p := a.Options.Preconditions; p != nil && (p.UID != nil || p.ResourceVersion != nil) {
		return false
	}
	return slices.Contains(a.Before.By, a.Before.asker(a))
}

// successor is the answer to an ask about a pod that is gone, whose name another
// pod has.
func successor(a *Ask) Decision {
	return Decision{
		Code: http.StatusNotFound,
		Message: fmt.Sprintf("lastcall: the pod %s that you asked for is gone; this is a new one of the same name. Ask again if it is to go too",
			a.Pod.Name),
	}
}

const (
	noSidecar    = "no sidecar"
	neverStarted = "never started" // the app starts after the phase Pending
	terminating  = "terminating"
)

// The users under which the namespace controller may call: one of its own, or
// that of all controllers.
const (
	namespaceController = "system:serviceaccount:kube-system:namespace-controller"
	allControllers      = "system:kube-controller-manager"
)

// passes returns why the ask is let through whatever is recorded, or "".
func passes(a *Ask) string {
	pod := a.Pod
	switch {
	case a.DryRun || len(a.Options.DryRun) > 0:
		return "dry run"
	case a.Own != "" && a.User == a.Own:
		return "the gate's own"
	case pod == nil:
		return "no such pod"
	case a.Ending || a.User == namespaceController:
		return "namespace deletion"
	case pod.Labels[Label] != "true":
		return "no label"
	case pod.DeletionTimestamp != nil:
		return terminating
	case a.Options.GracePeriodSeconds != nil && *a.Options.GracePeriodSeconds == 0:
		return "grace period 0"
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return "finished"
	case pod.Status.Phase == corev1.PodPending || pod.Status.Phase == "":
		return neverStarted
	case pod.Annotations[mirror] != "":
		return "static pod"
	case sidecarOf(pod) == nil:
		return noSidecar
	case mismatch(a):
		return "precondition" // the API server says which
	}
	return ""
}

// mismatch reports whether the ask is about another pod of that name, or about
// another version of it.
func mismatch(a *Ask) bool {
	p := a.Options.Preconditions
	return p != nil && (p.UID != nil && *p.UID != a.Pod.UID || p.ResourceVersion != nil && *p.ResourceVersion != a.Pod.ResourceVersion)
}

func denied(a *Ask, since time.Time) Decision {
	does := map[Verb]string{Delete: "deleted", Evict: "evicted"}[a.Verb]
	waited := ""
	if s := a.Now.Sub(since).Truncate(time.Second); s > 0 {
		waited = fmt.Sprintf(" for %s", s)
	}
	return Decision{
		Code: http.StatusTooManyRequests,
		Message: fmt.Sprintf("lastcall: pod %s waits%s to be drained, and is %s then without being asked again; `kubectl annotate pod -n %s %s %s-` takes that back, `kubectl delete --force --grace-period=0` does not wait",
			a.Pod.Name, waited, does, a.Pod.Namespace, a.Pod.Name, Recorded),
	}
}

// isMachine reports whether a user is a program that comes back by itself:
// nothing of it may be kept waiting.
func isMachine(user string) bool {
	for _, prefix := range []string{"system:serviceaccount:", "system:kube-", "system:node:", "system:apiserver"} {
		if strings.HasPrefix(user, prefix) {
			return true
		}
	}
	return false
}
