package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Events on the pod and the sidecar's termination message report a drain.
func TestEventsOfADrain(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		s.allowEvents()
		a := app{name: "web", replicas: 1, variant: v, grace: 30 * time.Second, flags: lingers()}
		pod := s.withEvents(a)
		s.deleted(pod)
		events := s.told(pod, "Draining", "Drained")
		if e := events[0]; e.Type != corev1.EventTypeNormal || e.InvolvedObject.Name != pod.Name || e.InvolvedObject.Kind != "Pod" || e.EventTime.IsZero() || e.LastTimestamp.IsZero() {
			s.Errorf("the event %+v", e)
		}
		says := regexp.MustCompile(`^drained after \d+\.\d s: withdrawing \d+\.\d s, propagating \d+\.\d s, draining \d+\.\d s$`)
		if got := events[1].Message; !says.MatchString(got) {
			s.Errorf("the last event says %q", got)
		}
		s.saidLast(a, events)
	})
}

// Events report that a budget ended before the drain, and the registry that was the
// reason.
func TestEventsOfADrainThatExpires(t *testing.T) {
	t.Run("work in flight", func(t *testing.T) {
		s := start(t)
		s.allowEvents()
		a := app{name: "web", replicas: 1, variant: native, grace: 8 * time.Second, lastcall: map[string]string{"LASTCALL_RESERVE": "3s"}}
		pod := s.withEvents(a)
		go func() { _, _ = s.post(pod.Name, appPort, "/work?for=60s") }() // fails at the pod's end
		inFlight := regexp.MustCompile(`"in_flight": *1\b`)
		s.eventually("a request in flight", func(context.Context) (bool, error) {
			status, err := s.get(pod.Name, sidecarPort, "/status")
			return inFlight.Match(status), err
		})
		s.deleted(pod)
		events := s.told(pod, "Draining", "DrainExpired")
		last := events[1]
		if last.Type != corev1.EventTypeWarning || !strings.HasPrefix(last.Message, "the budget of 5s ended, waiting for 1 request: tcp 1: ") {
			s.Errorf("the last event: %s %q", last.Type, last.Message)
		}
		s.saidLast(a, events)
	})
	t.Run("a registry that is gone", func(t *testing.T) {
		s := start(t)
		s.allowEvents()
		a := app{name: "web", replicas: 1, variant: native, grace: 8 * time.Second, flags: lingers(), lastcall: map[string]string{
			"LASTCALL_RESERVE": "3s", "LASTCALL_REGISTRIES": "consul", "CONSUL_HTTP_ADDR": "http://127.0.0.1:1",
		}}
		pod := s.withEvents(a)
		s.deleted(pod)
		events := s.told(pod, "Draining", "RegistryUnreachable", "DrainExpired")
		if e := events[1]; e.Type != corev1.EventTypeWarning || !strings.Contains(e.Message, "consul") || !strings.Contains(e.Message, "connection refused") {
			s.Errorf("of the registry: %s %q", e.Type, e.Message)
		}
		if got := events[2].Message; !strings.Contains(got, "waiting for consul to accept the withdrawal") {
			s.Errorf("the last event says %q", got)
		}
		s.saidLast(a, events)
	})
}

// An Event reports that a registry no longer lists the pod.
func TestEventsOfAWithdrawal(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		s.allowEvents()
		consul := s.consul()
		web := app{name: "web", replicas: 1, variant: v, flags: lingers(), lastcall: map[string]string{"LASTCALL_EVENTS": "true"}}
		spec := consul.podSpec(s, web, false)
		spec.AutomountServiceAccountToken = new(true)
		s.create(web, spec)
		s.ready(web)
		consul.holds(s, web)
		pod := s.podsOf(web)[0]
		s.deleted(pod)
		events := s.told(pod, "Draining", "Withdrawn", "Drained")
		if got := events[1]; got.Type != corev1.EventTypeNormal || !strings.Contains(got.Message, "consul") {
			s.Errorf("of the withdrawal: %s %q", got.Type, got.Message)
		}
		s.saidLast(web, events)
	})
}

// lingers makes the app run for a moment after SIGTERM. In this time the sidecar can
// write its last events, for which it does not wait long.
func lingers() []string { return []string{"-linger", "2s"} }

// kubectl shows the events in their order.
func TestEventsInKubectl(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t)
	s.allowEvents()
	pod := s.withEvents(app{name: "web", replicas: 1, variant: native})
	_, err = s.post(pod.Name, sidecarPort, "/drain")
	s.must("beginning a drain", err)
	s.told(pod, "Draining", "Drained")
	_, err = s.proxy("DELETE", pod.Name, sidecarPort, "/drain")
	s.must("taking the drain back", err)
	s.told(pod, "Draining", "Drained", "DrainTakenBack")
	for command, order := range map[string][]string{
		"describe pod " + pod.Name:     {"Started container app", "lastcall  the pod leaves (request)", "lastcall  drained after", "lastcall  the drain was taken back"},
		"events --for pod/" + pod.Name: {"Started container app", "the pod leaves (request)", "drained after", "the drain was taken back"},
		"get events --field-selector=reportingComponent=lastcall,reason=Drained": {"drained after"},
	} {
		out, err := exec.CommandContext(s.ctx, kubectl, append(strings.Fields(command), "--namespace", s.namespace)...).CombinedOutput()
		s.must("kubectl "+command, err)
		rest := regexp.MustCompile(`  +`).ReplaceAllString(string(out), "  ")
		for _, text := range order {
			_, after, found := strings.Cut(rest, text)
			if !found {
				s.Errorf("kubectl %s: no %q, or not in its place:\n%s", command, text, out)
				break
			}
			rest = after
		}
	}
}

// Without the Role, the drain takes no longer, and the log says once what is missing. The
// Role in the docs allows what is needed, and nothing else.
func TestEventsNeedARole(t *testing.T) {
	s := start(t)
	a := app{name: "web", replicas: 1, variant: native, grace: 30 * time.Second}
	pod := s.withEvents(a)
	s.deleted(pod)
	s.waitForPods("the pod is gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, a.name)) == 0 })
	if took := s.longest(a); took > 15*time.Second {
		s.Errorf("it took %v", took)
	}
	s.eventually("the end of the log", func(context.Context) (bool, error) {
		for _, log := range s.pods.logs() {
			return strings.Contains(log, `"msg":"ending"`), fmt.Errorf("the log is %s", log)
		}
		return false, nil
	})
	for _, log := range s.pods.logs() {
		if strings.Count(log, "cannot write one") != 1 || !strings.Contains(log, "a Role with the verb create on events") || !strings.Contains(log, "drained after") {
			s.Errorf("the log:\n%s", log)
		}
	}
	s.told(pod) // no events

	s.allowEvents()
	for _, may := range []struct {
		verb, group, resource string
		allowed               bool
	}{
		{"create", "", "events", true},
		{"create", "events.k8s.io", "events", false},
		{"get", "", "events", false},
		{"list", "", "events", false},
		{"patch", "", "events", false},
		{"update", "", "events", false},
		{"delete", "", "events", false},
		{"get", "", "pods", false},
		{"patch", "", "pods", false},
	} {
		allowed, err := s.mayPods(s.ctx, may.verb, may.group, may.resource)
		s.must("asking what is allowed", err)
		if allowed != may.allowed {
			s.Errorf("%s %s of group %q: allowed %v, want %v", may.verb, may.resource, may.group, allowed, may.allowed)
		}
	}
}

// mayPods reports whether the scenario's pods are allowed a verb on a resource.
func (s *scenario) mayPods(ctx context.Context, verb, group, resource string) (bool, error) {
	review, err := s.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + s.namespace + ":default",
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: s.namespace, Verb: verb, Group: group, Resource: resource},
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// The pod's status shows why a sidecar cannot start.
func TestLastWordsOfASidecarThatCannotStart(t *testing.T) {
	s := start(t)
	a := app{name: "web", variant: native, lastcall: map[string]string{"LASTCALL_EVENTS": "true", "LASTCALL_QUIET": "-1s"}}
	s.create(a, a.podSpec()) // without a service account token
	var message string
	s.waitForPods("the sidecar has ended", func(pods []*corev1.Pod) bool {
		for _, p := range ofApp(pods, a.name) {
			message = terminationMessage(p)
		}
		return message != ""
	})
	for _, text := range []string{"LASTCALL_QUIET=-1s: must be at least 0s", "set automountServiceAccountToken: true"} {
		if !strings.Contains(message, text) {
			s.Errorf("the termination message does not say %q: %s", text, message)
		}
	}
}

// allowEvents creates the Role and the RoleBinding in docs/events.md.
func (s *scenario) allowEvents() {
	s.Helper()
	docs, err := os.ReadFile("../docs/events.md")
	s.must("reading the docs", err)
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(docs)
	if block == nil {
		s.Fatal("docs/events.md holds no YAML")
	}
	manifests := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(block[1]), 4096)
	var role rbacv1.Role
	s.must("reading the Role", manifests.Decode(&role))
	_, err = s.client.RbacV1().Roles(s.namespace).Create(s.ctx, &role, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	s.must("creating the Role", err)
	var binding rbacv1.RoleBinding
	s.must("reading the RoleBinding", manifests.Decode(&binding))
	for i := range binding.Subjects {
		binding.Subjects[i].Namespace = s.namespace // as `kubectl apply -n` does
	}
	_, err = s.client.RbacV1().RoleBindings(s.namespace).Create(s.ctx, &binding, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	s.must("creating the RoleBinding", err)
	// The API server authorizes from a cache, which is updated some moments later.
	s.eventually("the Role holds", func(ctx context.Context) (bool, error) { return s.mayPods(ctx, "create", "", "events") })
}

// withEvents creates one pod of the app with a sidecar that writes events, and waits
// until the pod is ready.
func (s *scenario) withEvents(a app) *corev1.Pod {
	s.Helper()
	settings := map[string]string{"LASTCALL_EVENTS": "true"}
	for name, value := range a.lastcall {
		settings[name] = value
	}
	a.lastcall = settings
	spec := a.podSpec()
	spec.AutomountServiceAccountToken = new(true)
	s.create(a, spec)
	s.ready(a)
	return s.podsOf(a)[0]
}

// create creates one pod of the app.
func (s *scenario) create(a app, spec corev1.PodSpec) {
	s.Helper()
	_, err := s.client.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: a.name, Labels: map[string]string{"app": a.name}},
		Spec:       spec,
	}, metav1.CreateOptions{})
	s.must("creating a pod", err)
}

// deleted deletes the pod without waiting for its end.
func (s *scenario) deleted(pod *corev1.Pod) {
	s.Helper()
	s.must("deleting the pod", s.client.CoreV1().Pods(s.namespace).Delete(s.ctx, pod.Name, metav1.DeleteOptions{}))
}

// eventsOf returns the sidecar's events on the pod, sorted by time.
func (s *scenario) eventsOf(ctx context.Context, pod *corev1.Pod) ([]corev1.Event, error) {
	list, err := s.client.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: selectorOf(pod.UID)})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	return list.Items, nil
}

func selectorOf(pod types.UID) string {
	return fmt.Sprintf("involvedObject.uid=%s,reportingComponent=lastcall", pod)
}

// told waits until the pod has exactly the events with these reasons, in this order,
// and returns them.
func (s *scenario) told(pod *corev1.Pod, reasons ...string) (events []corev1.Event) {
	s.Helper()
	s.eventually(fmt.Sprint("the events ", reasons), func(ctx context.Context) (bool, error) {
		var err error
		if events, err = s.eventsOf(ctx, pod); err != nil {
			return false, err
		}
		var got []string
		for _, e := range events {
			got = append(got, e.Reason)
		}
		return slices.Equal(got, reasons), fmt.Errorf("there are %v", got)
	})
	return events
}

// saidLast waits until the app's pod is gone, and checks that its sidecar's termination
// message has the same content as the events.
func (s *scenario) saidLast(a app, events []corev1.Event) {
	s.Helper()
	words := strings.Split(strings.TrimSuffix(s.lastWords(a), "\n"), "\n")
	if len(words) != len(events) {
		s.Fatalf("the termination message has %d lines, and there are %d events: %q", len(words), len(events), words)
	}
	for i, e := range events {
		if !strings.HasSuffix(words[i], " "+e.Reason+": "+e.Message) {
			s.Errorf("the termination message says %q, and the event %s %q", words[i], e.Reason, e.Message)
		}
	}
}

// lastWords waits until the app's pod is gone, and returns its sidecar's
// termination message.
func (s *scenario) lastWords(a app) string {
	s.Helper()
	s.waitForPods("the pod is gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, a.name)) == 0 })
	gone := s.pods.terminations(a.name)
	if len(gone) == 0 {
		s.Fatal("nobody has seen the pod's deletion")
	}
	return terminationMessage(gone[len(gone)-1].pod)
}

// terminationMessage returns the termination message of the pod's sidecar. It is empty
// if the sidecar has never ended.
func terminationMessage(pod *corev1.Pod) string { return terminationMessageOf(pod, sidecarName) }

func terminationMessageOf(pod *corev1.Pod, container string) string {
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		switch {
		case c.Name != container:
		case c.State.Terminated != nil:
			return c.State.Terminated.Message
		case c.LastTerminationState.Terminated != nil:
			return c.LastTerminationState.Terminated.Message
		}
	}
	return ""
}
