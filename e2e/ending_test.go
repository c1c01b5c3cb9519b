package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod that is deleted while its app is still starting ends in time, even if the app
// begins to listen during the drain or after it.
func TestDeletedWhileStarting(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		young := app{name: "young", replicas: *times, variant: v, grace: 25 * time.Second}
		pods := s.createPods(young, func(n int) corev1.PodSpec { return startsSlowly(young, n).podSpec() })
		s.deletedWhileStarting(young, pods, "drained")
	})
}

// The same with Consul, in which the app registers as soon as it listens: no request
// of clients that find pods there fails.
func TestConsulDeletedWhileStarting(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		consul := s.consul()
		web := app{name: "web", replicas: 2, variant: v}
		s.createDeployment(web, consul.podSpec(s, web, false))
		s.ready(web)
		consul.holds(s, web)
		clients := consul.load(s)

		young := app{name: "young", replicas: *times, variant: v, grace: 25 * time.Second}
		pods := s.createPods(young, func(n int) corev1.PodSpec {
			if v == classic {
				n = 0 // an app that listens after the drain would register after the sidecar's end
			}
			return consul.podSpec(s, startsSlowly(young, n), true)
		})
		// An app that listens only after the drain does not register during it.
		s.deletedWhileStarting(young, pods, "drained", "instance_not_found")
		clients.more(40)
		counts := clients.stop()
		results.add(fmt.Sprintf("%d pods are deleted while their apps start, clients find them in Consul and use their copy for 5 s", *times), v, counts, s.longest(young))
		s.noneFailed(counts)
		consul.holds(s, web)
	})
}

// startFile tells an app that startsSlowly to listen. A port for that would be one more
// that the pod listens on, and change what the sidecar concludes.
const startFile = "/lastcall/start"

// startsSlowly returns the app for pod number n. The app begins to listen during its
// drain if n is even, or after it if n is odd. In the second case it ignores SIGTERM,
// like a process 1 that has no signal handler yet.
func startsSlowly(a app, n int) app {
	if n%2 == 0 {
		a.flags = exitsAtOnce()
		a.lastcall = map[string]string{"LASTCALL_ENDPOINTS_WAIT": "13s"}
	} else {
		a.flags = []string{"-deaf"}
	}
	a.flags = append(a.flags, "-starts-with", startFile)
	return a
}

// deletedWhileStarting deletes one pod after another, whose app runs but does not listen
// yet, tells the app to listen, and waits until all are gone. Each pod must have one drain, with one
// of the outcomes, that is not taken back.
func (s *scenario) deletedWhileStarting(a app, pods []string, outcomes ...string) {
	s.Helper()
	for n, name := range pods {
		s.waitForPods("the app of "+name+" runs", func(pods []*corev1.Pod) bool {
			p := byName(pods, name)
			return p != nil && runs(p, "app") && runs(p, sidecarName)
		})
		s.deleted(byName(s.pods.now(), name))
		if _, err := s.get(name, appPort, "/ready"); err == nil {
			s.Fatalf("the app of %s listens already", name)
		}
		s.eventually("the drain of "+name, func(ctx context.Context) (bool, error) {
			if n%2 == 1 { // its end; a classic sidecar has gone by then
				return len(s.outcomes(name)) > 0, nil
			}
			serving, err := s.phaseIs(name, "serving")(ctx)
			return err == nil && !serving, err
		})
		s.kubectl(nil, "exec", "--namespace", s.namespace, name, "--container", "app", "--", "/app", "touch", startFile)
		s.eventually("the app of "+name+" listens in its last moments", func(context.Context) (bool, error) {
			_, err := s.get(name, appPort, "/ready")
			return err == nil, err
		})
	}
	s.waitForPods("the pods are gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, a.name)) == 0 })
	s.onTime(a)
	gone := s.pods.terminations(a.name)
	if len(gone) != a.replicas {
		s.Errorf("%d pods are gone, want %d", len(gone), a.replicas)
	}
	for _, end := range gone {
		s.endedAs(end.pod.Name, outcomes...)
		if log := s.logOf(end.pod.Name); strings.Contains(log, "taken back") || strings.Contains(log, "only restarted") {
			s.Errorf("%s was taken back:\n%s", end.pod.Name, log)
		}
	}
}

// hurry is a way to stop a pod in less time than LASTCALL_GRACE_PERIOD.
type hurry struct {
	name  string
	grace time.Duration // the resulting grace period
	own   bool          // the pod's own terminationGracePeriodSeconds is that short
	stop  func(*scenario, *corev1.Pod)
}

var hurries = []hurry{
	{"short", 5 * time.Second, true, func(s *scenario, pod *corev1.Pod) { s.deleted(pod) }},
	{"second", time.Second, false, func(s *scenario, pod *corev1.Pod) {
		s.must("deleting "+pod.Name, s.client.CoreV1().Pods(s.namespace).Delete(s.ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}))
	}},
	{"now", time.Second, false, func(s *scenario, pod *corev1.Pod) {
		out, err := exec.CommandContext(s.ctx, "kubectl", "delete", "pod", pod.Name, "--now", "--wait=false", "--namespace", s.namespace).CombinedOutput()
		s.must("kubectl delete --now: "+string(out), err)
	}},
	{"evicted", 3 * time.Second, false, func(s *scenario, pod *corev1.Pod) {
		s.must("evicting "+pod.Name, s.client.PolicyV1().Evictions(s.namespace).Evict(s.ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
			DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: new(int64(3))},
		}))
	}},
}

// mayTell reports whether the sidecar can report that the grace period was too short.
//
// At the end of the grace period, the kubelet gives up the app's hook, and the app has
// 2 s until SIGKILL. A native sidecar recognises this by its own SIGTERM, which comes at
// that moment. But a SIGTERM about a second after the hook may also be the late one of
// a classic sidecar, unless the app ends. A classic sidecar is killed at the end of the
// grace period, but not within 2 s. It can only see the app's end if that comes before.
func (h hurry) mayTell(v variant, hangs bool) bool {
	if v == native {
		return !hangs || h.grace > 2*time.Second
	}
	return !hangs && h.grace < 2*time.Second
}

// A pod is stopped in less time than LASTCALL_GRACE_PERIOD, so its drain cannot end. It
// is withdrawn at once. If the sidecar can know the reason, the log, the Event and the
// termination message report it, and the instance of an app that has ended is
// deregistered. Some of the apps hang, the others exit at SIGTERM.
func TestShorterThanTheGracePeriod(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		s.allowEvents()
		consul := s.consul()
		hangs := func(n int) bool { return n%2 == 1 }
		tellers, events, deregistered := 0, 0, 0
		for _, h := range hurries { // one after another: each takes only seconds
			web := app{name: h.name, replicas: *times, variant: v, lastcall: map[string]string{
				"LASTCALL_EVENTS": "true", "LASTCALL_ENDPOINTS_WAIT": "20s",
				"LASTCALL_DRAINING_FILE": "", // an app that is notified of the drain may close its port by itself
			}}
			names := s.createPods(web, func(n int) corev1.PodSpec {
				one := web
				if one.flags = exitsAtOnce(); hangs(n) {
					one.flags = []string{"-deaf"}
				}
				spec := consul.podSpec(s, one, true)
				spec.AutomountServiceAccountToken = new(true)
				if h.own {
					spec.TerminationGracePeriodSeconds = new(int64(h.grace.Seconds()))
				}
				return spec
			})
			s.ready(web)
			for _, name := range names {
				s.eventually("Consul holds "+name, s.hasStatus(consul, name, consul.up))
			}
			for _, pod := range s.podsOf(web) {
				h.stop(s, pod)
			}
			s.waitForPods("the pods are gone", func(pods []*corev1.Pod) bool { return len(ofApp(pods, h.name)) == 0 })
			for _, end := range s.pods.terminations(h.name) {
				hung := hangs(slices.Index(names, end.pod.Name))
				told := strings.Contains(terminationMessage(end.pod), "DrainExpired: ")
				if h.mayTell(v, hung) && (told || v == native && s.signalIsLate(end.pod.Name)) {
					tellers++
					if s.endIsTold(end.pod) {
						events++
					}
				}
				if told && !hung && v == native && !strings.Contains(s.logOf(end.pod.Name), "not deregistered in time") {
					s.eventually(end.pod.Name+" is deregistered", s.hasStatus(consul, end.pod.Name, ""))
					deregistered++
				} else { // a hung app would register itself again
					s.eventually(end.pod.Name+" is withdrawn", s.hasStatus(consul, end.pod.Name, consul.out, ""))
				}
			}
		}
		if events == 0 {
			s.Error("no sidecar has told of its end by an Event")
		}
		if v == native && deregistered == 0 {
			s.Error("no sidecar has deregistered its app")
		}
		s.Logf("%d of %d sidecars have told of their end, %d by an Event", tellers, len(hurries)**times, events)
	})
}

// signalIsLate reports whether a sidecar's log shows that SIGTERM came long enough after
// the hook to distinguish it from that of a classic sidecar. On a busy machine, the hook of
// a pod with a grace period of one second may be called too late for that.
func (s *scenario) signalIsLate(pod string) bool {
	s.Helper()
	var began, signalled time.Time
	for line := range strings.Lines(s.logOf(pod)) {
		var entry struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		switch {
		case strings.HasPrefix(entry.Msg, "drain: begun"):
			began = entry.Time
		case entry.Msg == "signal received":
			signalled = entry.Time
		}
	}
	return signalled.IsZero() || signalled.Sub(began) > 920*time.Millisecond
}

// hasStatus returns a function that reports whether a registry holds a pod's instance
// with one of the statuses. An empty status means that the registry holds no instance.
func (s *scenario) hasStatus(r registry, pod string, status ...string) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		got, err := r.ask(s.namespace)
		return err == nil && slices.Contains(status, got[pod]), errors.Join(fmt.Errorf("%s holds %v", r.kind, got), err)
	}
}

// endIsTold checks that the log, the termination message and the last Event of a pod
// that is gone report that it had too little time to drain. It reports whether there is
// such an Event: a busy API server may not accept it before the sidecar is killed, and
// then the log must say so.
func (s *scenario) endIsTold(pod *corev1.Pod) (event bool) {
	s.Helper()
	const hint = "LASTCALL_GRACE_PERIOD"
	s.ended(pod.Name, "expired")
	log := s.logOf(pod.Name)
	if !strings.Contains(log, hint) {
		s.Errorf("the log of %s does not say %s:\n%s", pod.Name, hint, log)
	}
	if words := terminationMessage(pod); !strings.Contains(words, "DrainExpired: ") || !strings.Contains(words, hint) {
		s.Errorf("the termination message of %s: %q", pod.Name, words)
	}
	if strings.Contains(log, "events: some were not written") {
		return false
	}
	s.eventually("the Event of "+pod.Name, func(ctx context.Context) (bool, error) {
		events, err := s.eventsOf(ctx, pod)
		if err != nil || len(events) == 0 {
			return false, errors.Join(errors.New("there is none"), err)
		}
		last := events[len(events)-1]
		return last.Reason == "DrainExpired" && last.Type == corev1.EventTypeWarning && strings.Contains(last.Message, hint), fmt.Errorf("the last is %s %s: %s", last.Type, last.Reason, last.Message)
	})
	return true
}

// LASTCALL_APP_PORT is a port that nobody listens on. While the pod serves, warnings
// name this port and the port on which the app listens. A drain must not be reported as
// clean: it uses its whole budget, because nothing counts the requests.
func TestMisspeltPort(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		s.allowEvents()
		const wrong = appPort + 1
		web := app{name: "web", replicas: *times, variant: v, grace: 20 * time.Second, flags: exitsAtOnce(), lastcall: map[string]string{
			"LASTCALL_APP_PORT": fmt.Sprint(wrong), "LASTCALL_EVENTS": "true",
		}}
		spec := web.podSpec()
		spec.AutomountServiceAccountToken = new(true)
		s.createDeployment(web, spec)
		address := s.service(web.name)
		s.ready(web)
		// One pod is deleted before the warning about it is due.
		young := s.podsOf(web)[0]
		s.deleted(young)
		s.replaced(web, uids([]*corev1.Pod{young}))
		s.portIsTold(young, wrong)

		old := s.podsOf(web)
		for _, pod := range old {
			s.portIsTold(pod, wrong)
			s.eventually("the status tells it", func(context.Context) (bool, error) {
				status, err := s.get(pod.Name, sidecarPort, "/status")
				return strings.Contains(string(status), "LASTCALL_APP_PORT"), errors.Join(fmt.Errorf("it is %s", status), err)
			})
		}
		clients := s.load(address, "-shortest", "6s", "-longest", "8s")
		if counts := clients.finish(); counts.InFlight == 0 {
			s.Fatal("no request is in flight: the load is too weak")
		}
		s.scale(&web, 0)
		counts := clients.stop()
		results.add(fmt.Sprintf("LASTCALL_APP_PORT is misspelt, %d pods are deleted, requests take 6 to 8 s", *times), v, counts, s.longest(web))
		s.noneFailed(counts)
		for _, pod := range append(old, young) {
			s.ended(pod.Name, "expired")
		}
	})
}

// portIsTold waits until the log and a Warning Event of a pod name the wrong port and
// the port on which the app listens.
func (s *scenario) portIsTold(pod *corev1.Pod, wrong int) {
	s.Helper()
	tells := func(text string) bool {
		return strings.Contains(text, "LASTCALL_APP_PORT") && strings.Contains(text, fmt.Sprint(wrong)) && strings.Contains(text, fmt.Sprint(appPort))
	}
	s.eventually("the log of "+pod.Name+" tells of the port", func(context.Context) (bool, error) {
		log := s.logOf(pod.Name)
		for line := range strings.Lines(log) {
			var entry struct{ Level string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "WARN" && tells(line) {
				return true, nil
			}
		}
		return false, fmt.Errorf("it is %s", log)
	})
	s.eventually("an Event on "+pod.Name+" tells of the port", func(ctx context.Context) (bool, error) {
		events, err := s.eventsOf(ctx, pod)
		return slices.ContainsFunc(events, func(e corev1.Event) bool { return e.Type == corev1.EventTypeWarning && tells(e.Message) }), err
	})
}

// createPods creates as many pods as the app has replicas, and returns their names. spec
// returns the spec of pod number n.
func (s *scenario) createPods(a app, spec func(n int) corev1.PodSpec) []string {
	s.Helper()
	names := make([]string, a.replicas)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", a.name, i)
		_, err := s.client.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: names[i], Labels: a.labels()},
			Spec:       spec(i),
		}, metav1.CreateOptions{})
		s.must("creating a pod", err)
	}
	return names
}

// logOf returns the logs of all sidecars of pods with this name.
func (s *scenario) logOf(pod string) string {
	var all strings.Builder
	for name, log := range s.pods.logs() {
		if strings.HasPrefix(name, pod+"/") {
			all.WriteString(log)
		}
	}
	return all.String()
}
