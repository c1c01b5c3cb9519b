package gate_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lastcall/admission/gate"
)

const own = "system:serviceaccount:lastcall-system:lastcall-admission"

// running returns a running pod with the gate's label.
func running(name string) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "team", UID: types.UID("uid-" + name), ResourceVersion: "7",
			Labels: map[string]string{gate.Label: "true", "app": "web"}, Annotations: map[string]string{},
		},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "lastcall", RestartPolicy: &always}},
			Containers:     []corev1.Container{{Name: "app"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "127.0.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func uid(s types.UID) *types.UID { return &s }

// Each case changes one thing of an Ask that is denied, and gives the decision.
func TestDecide(t *testing.T) {
	zero, ten, version := int64(0), int64(10), "6"
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	recorded := `{"uid":"uid-web-0","verb":"evict","by":["kubelet"],"at":"2026-11-28T11:59:00Z"`
	released := recorded + `,"released":"drained"}`
	for name, c := range map[string]struct {
		change  func(a *gate.Ask)
		allow   string // the reason; empty if it is denied
		message string
		code    int32
		verb    gate.Verb // of the new request that is recorded
	}{
		"a deletion":             {func(*gate.Ask) {}, "", "is deleted then", 429, gate.Delete},
		"an eviction":            {func(a *gate.Ask) { a.Verb = gate.Evict }, "", "is evicted then", 429, gate.Evict},
		"a short grace period":   {func(a *gate.Ask) { a.Options.GracePeriodSeconds = &ten }, "", "", 429, gate.Delete},
		"its uid":                {func(a *gate.Ask) { a.Options.Preconditions = &metav1.Preconditions{UID: uid("uid-web-0")} }, "", "", 429, gate.Delete},
		"its controller":         {func(a *gate.Ask) { a.User = "system:serviceaccount:kube-system:statefulset-controller" }, "", "", 429, gate.Delete},
		"the kubelet":            {func(a *gate.Ask) { a.User = "system:node:n1" }, "", "", 429, gate.Delete},
		"dry run":                {func(a *gate.Ask) { a.DryRun = true }, "dry run", "", 0, ""},
		"dry run in the options": {func(a *gate.Ask) { a.Options.DryRun = []string{"All"} }, "dry run", "", 0, ""},
		"the gate":               {func(a *gate.Ask) { a.User = own }, "the gate's own", "", 0, ""},
		"namespace controller":   {func(a *gate.Ask) { a.User = "system:serviceaccount:kube-system:namespace-controller" }, "namespace deletion", "", 0, ""},
		"namespace is ending":    {func(a *gate.Ask) { a.Ending = true }, "namespace deletion", "", 0, ""},
		"no pod":                 {func(a *gate.Ask) { a.Pod = nil }, "no such pod", "", 0, ""},
		"no label":               {func(a *gate.Ask) { a.Pod.Labels = nil }, "no label", "", 0, ""},
		"label false":            {func(a *gate.Ask) { a.Pod.Labels[gate.Label] = "false" }, "no label", "", 0, ""},
		"terminating":            {func(a *gate.Ask) { a.Pod.DeletionTimestamp = &metav1.Time{Time: now} }, "terminating", "", 0, ""},
		"force":                  {func(a *gate.Ask) { a.Options.GracePeriodSeconds = &zero }, "grace period 0", "", 0, ""},
		"succeeded":              {func(a *gate.Ask) { a.Pod.Status.Phase = corev1.PodSucceeded }, "finished", "", 0, ""},
		"failed":                 {func(a *gate.Ask) { a.Pod.Status.Phase = corev1.PodFailed }, "finished", "", 0, ""},
		"pending":                {func(a *gate.Ask) { a.Pod.Status.Phase = corev1.PodPending }, "never started", "", 0, ""},
		"phase unknown":          {func(a *gate.Ask) { a.Pod.Status.Phase = corev1.PodUnknown }, "", "", 429, gate.Delete},
		"static":                 {func(a *gate.Ask) { a.Pod.Annotations["kubernetes.io/config.mirror"] = "x" }, "static pod", "", 0, ""},
		"no sidecar":             {func(a *gate.Ask) { a.Pod.Spec.InitContainers = nil }, "no sidecar", "", 0, ""},
		"classic sidecar":        {func(a *gate.Ask) { a.Pod.Spec.InitContainers[0].Name, a.Pod.Spec.Containers[0].Name = "x", "lastcall" }, "", "", 429, gate.Delete},
		"another uid":            {func(a *gate.Ask) { a.Options.Preconditions = &metav1.Preconditions{UID: uid("x")} }, "precondition", "", 0, ""},
		"another version":        {func(a *gate.Ask) { a.Options.Preconditions = &metav1.Preconditions{ResourceVersion: &version} }, "precondition", "", 0, ""},
		"recorded":               {func(a *gate.Ask) { a.Pod.Annotations[gate.Recorded] = recorded + "}" }, "", "waits for 1m0s to be drained, and is deleted", 429, ""},
		"released":               {func(a *gate.Ask) { a.Pod.Annotations[gate.Recorded] = released }, "drained", "", 0, ""},
		"another pod's release":  {func(a *gate.Ask) { a.Pod.Annotations[gate.Recorded] = strings.Replace(released, "web-0", "web-1", 1) }, "", "", 429, gate.Delete},
		"unreadable record":      {func(a *gate.Ask) { a.Pod.Annotations[gate.Recorded] = "{" }, "", "", 429, gate.Delete},
		"the successor":          {func(a *gate.Ask) { a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"x", "jane"}} }, "", "a new pod has its name", 404, ""},
		"the successor, not started": {func(a *gate.Ask) {
			a.Pod.Status.Phase = corev1.PodPending
			a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"jane"}}
		}, "", "a new pod has its name", 404, ""},
		"the successor, finished": {func(a *gate.Ask) {
			a.Pod.Status.Phase = corev1.PodFailed
			a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"jane"}}
		}, "finished", "", 0, ""},
		"the successor, not started, without a sidecar": {func(a *gate.Ask) {
			a.Pod.Status.Phase, a.Pod.Spec.InitContainers = corev1.PodPending, nil
			a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"jane"}}
		}, "never started", "", 0, ""},
		"the successor, by another verb": {func(a *gate.Ask) { a.Before = &gate.Request{UID: "old", Verb: gate.Evict, By: []string{"jane", "x"}} }, "", "", 429, gate.Delete},
		"the successor, by both verbs": {func(a *gate.Ask) {
			a.Before = &gate.Request{UID: "old", Verb: gate.Evict, By: []string{"jane", "jane (delete)"}}
		}, "", "a new pod has its name", 404, ""},
		"the successor, by version": {func(a *gate.Ask) {
			a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"jane"}}
			a.Options.Preconditions = &metav1.Preconditions{ResourceVersion: &a.Pod.ResourceVersion}
		}, "", "", 429, gate.Delete},
		"the successor, by uid": {func(a *gate.Ask) {
			a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"jane"}}
			a.Options.Preconditions = &metav1.Preconditions{UID: uid("uid-web-0")}
		}, "", "", 429, gate.Delete},
		"the successor, by a controller": {func(a *gate.Ask) {
			a.User = "system:serviceaccount:kube-system:statefulset-controller"
			a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{a.User}}
		}, "", "", 429, gate.Delete},
		"the successor, evicted by what runs in kube-system": {func(a *gate.Ask) {
			a.Verb, a.User = gate.Evict, "system:serviceaccount:kube-system:cluster-autoscaler"
			a.Before = &gate.Request{UID: "old", Verb: gate.Evict, By: []string{a.User}}
		}, "", "a new pod has its name", 404, ""},
		"the successor, by another user": {func(a *gate.Ask) { a.Before = &gate.Request{UID: "old", Verb: gate.Delete, By: []string{"x"}} }, "", "", 429, gate.Delete},
	} {
		t.Run(name, func(t *testing.T) {
			a := &gate.Ask{Verb: gate.Delete, User: "jane", Own: own, Now: now, Pod: running("web-0")}
			c.change(a)
			d := gate.Decide(a)
			if d.Allow != (c.allow != "") || d.Why != c.allow || d.Code != c.code || !strings.Contains(d.Message, c.message) {
				t.Errorf("decided %+v", d)
			}
			if d.New != (c.verb != "") || d.New && (d.Record.Verb != c.verb || d.Record.UID != "uid-web-0" || d.Record.By[0] != a.User || !d.Record.At.Equal(now)) {
				t.Errorf("records %+v", d.Record)
			}
			if !d.Allow && d.Code == http.StatusTooManyRequests && !strings.Contains(d.Message, "kubectl annotate pod -n team web-0 lastcall/gate-request-") {
				t.Errorf("it does not say how to take it back: %s", d.Message)
			}
			if again := gate.Decide(a); !cmp.Equal(d, again) {
				t.Errorf("the second time it is %+v", again)
			}
		})
	}
}

// The recorded request of the first Ask stays. The users of later ones are added, up
// to a limit.
func TestRecordedAskers(t *testing.T) {
	pod := running("web-0")
	pod.Annotations[gate.Recorded] = `{"uid":"uid-web-0","verb":"evict","gracePeriodSeconds":5,"by":["a"],"at":"2026-11-28T11:59:00Z"}`
	d := gate.Decide(&gate.Ask{Verb: gate.Delete, User: "b", Pod: pod, Now: time.Now()})
	if d.New || d.Record == nil || d.Record.Verb != gate.Evict || *d.Record.GracePeriodSeconds != 5 || !cmp.Equal(d.Record.By, []string{"a", "b (delete)"}) {
		t.Errorf("records %+v", d.Record)
	}
	pod.Annotations[gate.Recorded] = `{"uid":"uid-web-0","verb":"evict","by":["1","2","3","4","5","6","7","8"],"at":"2026-11-28T11:59:00Z"}`
	if d = gate.Decide(&gate.Ask{Verb: gate.Delete, User: "b", Pod: pod, Now: time.Now()}); d.Record != nil || d.Allow {
		t.Errorf("decided %+v", d)
	}
}
