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

// Ask is a request to the API server to delete or evict a pod.
type Ask struct {
	Verb    Verb
	Options metav1.DeleteOptions
	User    string
	DryRun  bool
	// Pod is the pod in its current state; nil if it does not exist.
	Pod *corev1.Pod
	// Ending reports whether the pod's whole namespace is being deleted.
	Ending bool
	// Own is the user name of the gate itself.
	Own string
	// Before is the recorded request of a pod of the same name that was deleted a
	// moment ago, or nil. Its By holds only users who do not know yet that the pod
	// is gone.
	Before *Request
	Now    time.Time
}

// Decision is the answer to an Ask.
type Decision struct {
	Allow bool
	// Why is a short reason why the request is allowed.
	Why string
	// Code and Message are the HTTP status code and the text of a denial.
	Code    int32
	Message string
	// Record must be written to the pod before the response; nil if the pod needs no
	// change. New reports whether no request was recorded before.
	Record *Request
	New    bool
	// Warning is shown to the user; empty if there is none.
	Warning string
}

// Decide decides whether an Ask is allowed. The result depends only on the argument.
// For most requests that are always allowed, the API server does not call the webhook
// (see deploy/admission/gate/webhook.yaml), but Decide does not rely on that.
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

// Remember is how long the gate remembers the request of a deleted pod. A user who
// does not know yet that the pod is gone may repeat the request by name, which would
// affect the pod's successor. kubectl drain repeats it every 5 s.
const Remember = 10 * time.Second

// repeats reports whether an Ask may repeat a request that was meant for the previous
// pod of the same name: it has the same user and the same verb. An Ask with the pod's
// UID or resource version is about this pod. So is a deletion by a controller, because
// the controller has seen or created this pod.
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

// successor returns the denial of an Ask about a deleted pod whose name a new pod has.
func successor(a *Ask) Decision {
	return Decision{
		Code: http.StatusNotFound,
		Message: fmt.Sprintf("lastcall: the pod %s that you asked for is gone, and a new pod has its name. Repeat the request to remove the new one as well",
			a.Pod.Name),
	}
}

const (
	noSidecar    = "no sidecar"
	neverStarted = "never started" // in the phase Pending, the app has not started
	terminating  = "terminating"
)

// The user names that the namespace controller may use: its own ServiceAccount, or
// the user that all controllers share.
const (
	namespaceController = "system:serviceaccount:kube-system:namespace-controller"
	allControllers      = "system:kube-controller-manager"
)

// passes returns why the Ask is allowed independent of any recorded request, or "".
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
		return "precondition" // the API server rejects the request itself
	}
	return ""
}

// mismatch reports whether the Ask's preconditions name another pod or another
// version of it.
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

// isMachine reports whether a user is a component of the cluster that retries by
// itself. The gate does not keep such requests waiting.
func isMachine(user string) bool {
	for _, prefix := range []string{"system:serviceaccount:", "system:kube-", "system:node:", "system:apiserver"} {
		if strings.HasPrefix(user, prefix) {
			return true
		}
	}
	return false
}
