package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shortGrace is a grace period shorter than the requests.
const shortGrace = 10 * time.Second

// longRequests returns the flags of `app load` for the requests that longWork describes.
func longRequests() []string { return []string{"-rate", "10", "-shortest", "25s", "-longest", "30s"} }

const longWork = "a grace period of 10 s and requests of 25 to 30 s"

// gates enables the gate for evictions in the scenario's namespace, and waits until the
// API server can call the webhook.
func (s *scenario) gates() {
	s.Helper()
	s.held = true
	s.setLabel("lastcall/gate", "true")
	s.injects(app{name: "tried", variant: byWebhook})
}

// What happens without the gate. It has no part in TestAdmission, so that it need not
// wait for the gate.
func TestStatefulSetWithoutTheGate(t *testing.T) {
	each(t, []variant{native}, (*scenario).gatedStatefulSet)
}

// An OrderedReady StatefulSet with requests that are longer than the grace period
// is restarted, one of its pods is deleted by kubectl, its node is drained, and it
// is scaled down. Without the gate, requests are cut off.
func (s *scenario) gatedStatefulSet(v variant) {
	s.Helper()
	// kubectl drain selects pods in all namespaces: the label must be unique.
	web := app{name: s.namespace, replicas: 3, variant: v, grace: shortGrace, ordered: true, flags: exitsAtOnce()}
	s.createStatefulSet(web, web.podSpec())
	address := s.service(web.name)
	if v == gated {
		s.gates()
	}
	s.ready(web)
	s.budget(web, 2)
	clients := s.load(address, longRequests()...)
	s.restartStatefulSet(web)
	pod := s.podsOf(web)[1]
	s.kubectl(nil, "delete", "pod", pod.Name, "--namespace", s.namespace) // kubectl waits until it is gone
	s.replaced(web, uids([]*corev1.Pod{pod}))
	evicted := s.drainNodeOf(web)
	s.scaleStatefulSet(&web, 2)
	counts := clients.stop()
	results.add("StatefulSet of 3 (OrderedReady) with "+longWork+" restarts, a pod is deleted, its node is drained, and it is scaled down; the app exits at SIGTERM", v, counts, s.longest(web))
	if gone, want := len(s.pods.terminations(web.name)), 3+1+evicted+1; gone != want {
		s.Errorf("%d pods are gone, want %d", gone, want)
	}
	if v != gated {
		if counts.Failed == 0 {
			s.Errorf("none of %d requests failed without the gate: the load is too weak", counts.Requests)
		}
		return
	}
	s.noneFailed(counts)
	s.wentWell(web)
	s.wentOnceDrained(web)
}

// A Deployment with requests that are longer than the grace period is scaled down. Then
// kubectl drain evicts its other pods, as far as its PodDisruptionBudget allows.
func (s *scenario) gatedDeployment(v variant) {
	s.Helper()
	web := app{name: s.namespace, replicas: 6, variant: v, grace: shortGrace, flags: exitsAtOnce()}
	address := s.deploy(web)
	s.gates()
	clients := s.load(address, longRequests()...)
	s.scaleTo(web, 3)
	s.waitForPods("3 of 6 pods are gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, web.name)) <= 3 })
	web.replicas = 3
	if gone := len(s.pods.terminations(web.name)); gone != 3 {
		s.Errorf("%d pods are gone, want 3", gone)
	}
	for _, p := range s.podsOf(web) {
		serving := false
		s.eventually(p.Name+" says what it does", func(ctx context.Context) (_ bool, err error) {
			serving, err = s.phaseIs(p.Name, "serving")(ctx)
			return err == nil, err
		})
		if !serving || p.Annotations[recorded] != "" {
			s.Errorf("%s is to stay, and does not serve: %v", p.Name, p.Annotations)
		}
	}
	const available = 1
	s.budget(web, available)
	ctx, cancel := context.WithCancel(s.ctx)
	held := s.watchReady(ctx, web, available)
	evicted := s.drainNodeOf(web)
	cancel()
	if err := <-held; err != nil {
		s.Error(err)
	}
	if gone, want := len(s.pods.terminations(web.name)), 3+evicted; gone != want {
		s.Errorf("%d pods are gone, want %d", gone, want)
	}
	counts := clients.stop()
	results.add("Deployment of 6 with "+longWork+" is scaled to 3, and kubectl drain, PodDisruptionBudget of 1 of 3; the app exits at SIGTERM", v, counts, s.longest(web))
	s.noneFailed(counts)
	s.wentWell(web)
	s.wentOnceDrained(web)
}

// watchReady watches the app's pods until ctx ends. Then it sends an error if fewer than
// least were ready at any time, and closes the channel.
func (s *scenario) watchReady(ctx context.Context, a app, least int) <-chan error {
	told := make(chan error, 1)
	go func() {
		fewest := a.replicas
		_ = s.pods.wait(ctx, func(pods []*corev1.Pod) bool { // until ctx ends
			ready := 0
			for _, p := range ofApp(pods, a.name) {
				if isReady(p) && p.DeletionTimestamp == nil {
					ready++
				}
			}
			fewest = min(fewest, ready)
			return false
		})
		if fewest < least {
			told <- fmt.Errorf("only %d pods of %s were ready at a time, want %d", fewest, a.name, least)
		}
		close(told)
	}()
	return told
}

// Pods never drain because a client waits for answers. The recorded request can be
// cancelled. A forced deletion does not wait, and neither does the deletion of the whole
// namespace.
func podsThatNeverDrain(t *testing.T) {
	s := startFor(t, patience)
	web := app{name: "web", replicas: 3, variant: gated, grace: shortGrace, flags: exitsAtOnce()}
	names := s.createPods(web, func(int) corev1.PodSpec { return web.podSpec() })
	s.gates()
	s.ready(web)
	for _, pod := range s.podsOf(web) {
		s.keepsBusy(pod)
		s.isEvictedLater(pod)
	}
	withdrawn, forced, left := names[0], names[1], names[2]
	s.kubectl(nil, "annotate", "pod", withdrawn, recorded+"-", "--namespace", s.namespace)
	s.eventually(withdrawn+" serves again", s.phaseIs(withdrawn, "serving"))
	s.waitForPods(withdrawn+" is ready again", func(pods []*corev1.Pod) bool {
		p := byName(pods, withdrawn)
		return p != nil && isReady(p)
	})

	s.kubectl(nil, "delete", "pod", forced, "--force", "--grace-period=0", "--namespace", s.namespace)
	s.waitForPods(forced+" is gone", func(pods []*corev1.Pod) bool { return byName(pods, forced) == nil })

	if p := byName(s.pods.now(), left); p == nil || p.DeletionTimestamp != nil {
		s.Errorf("%s was let go, although it is not drained", left)
	}
	s.must("deleting the namespace", s.client.CoreV1().Namespaces().Delete(s.ctx, s.namespace, metav1.DeleteOptions{}))
	s.eventually("the namespace is gone", func(ctx context.Context) (bool, error) {
		_, err := s.client.CoreV1().Namespaces().Get(ctx, s.namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), cmp.Or(err, errors.New("it is there"))
	})
}

// recorded is the annotation that holds the request.
const recorded = "lastcall/gate-request"

// isEvictedLater requests an eviction once. It checks that the gate denies and records
// it, and waits until the pod drains.
func (s *scenario) isEvictedLater(pod *corev1.Pod) {
	s.Helper()
	err := s.client.PolicyV1().Evictions(s.namespace).Evict(s.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}})
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "waits to be drained") {
		s.Fatalf("evicting %s: %v, want it denied by the gate", pod.Name, err)
	}
	s.waitForPods("the request is recorded", func(pods []*corev1.Pod) bool {
		p := byName(pods, pod.Name)
		return p != nil && p.Annotations[recorded] != ""
	})
	s.eventually(pod.Name+" drains", func(ctx context.Context) (bool, error) {
		serving, err := s.phaseIs(pod.Name, "serving")(ctx)
		return err == nil && !serving, err
	})
}

// wentOnceDrained checks that the app's pods were deleted after the ends of their drains
// and not before, and were gone soon.
func (s *scenario) wentOnceDrained(a app) {
	s.Helper()
	const soon = 20 * time.Second
	var longest time.Duration
	for _, end := range s.pods.terminations(a.name) {
		drained, ok := s.drainedAt(end)
		if !ok {
			s.Errorf("the log of %s does not tell when it had drained", end.pod.Name)
			continue
		}
		// DeletionTimestamp is the end of the grace period, in whole seconds.
		deleted := end.pod.DeletionTimestamp.Add(-time.Duration(*end.pod.DeletionGracePeriodSeconds) * time.Second)
		took := end.at.Sub(drained)
		longest = max(longest, took)
		if took > soon || deleted.Before(drained.Truncate(time.Second)) {
			s.Errorf("%s had drained at %s, was deleted at %s and gone at %s: want it gone within %v", end.pod.Name, drained, deleted, end.at, soon)
		}
	}
	s.Logf("the slowest pod was gone %.1f s after it had drained", longest.Seconds())
}

// drainedAt returns when a pod had drained, read from its sidecar's log. If several pods
// had that name, it is the last time before this one was gone.
func (s *scenario) drainedAt(end termination) (at time.Time, ok bool) {
	for line := range strings.Lines(s.logOf(end.pod.Name)) {
		var entry struct {
			Time    time.Time
			Outcome string
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Outcome == "drained" && !entry.Time.After(end.at) && entry.Time.After(at) {
			at, ok = entry.Time, true
		}
	}
	return at, ok
}

// keepsBusy starts a client whose requests to a pod take an hour. The pod does not drain
// until letGo is called.
func (s *scenario) keepsBusy(pod *corev1.Pod) (letGo func()) {
	s.Helper()
	name := "keeps-" + pod.Name
	s.runClient(name, "load", "-url", fmt.Sprintf("http://%s:%d/work", pod.Status.PodIP, appPort),
		"-rate", "1", "-shortest", "1h", "-longest", "1h")
	s.eventually(name+" has made a request", func(context.Context) (bool, error) {
		now, err := clients{s: s, name: name}.counts()
		return err == nil && now.InFlight > 0, err
	})
	return func() {
		s.Helper()
		s.must("ending "+name, s.client.CoreV1().Pods(s.namespace).Delete(s.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}))
	}
}
