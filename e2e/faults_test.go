package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lastcall/e2e/load"
)

// The kubelet restarts an app whose liveness probe fails, after its preStop hook. The pod
// stays, and is in service again afterwards.
func TestLivenessFails(t *testing.T) {
	each(t, []variant{native, classic, bare}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 2, variant: v, liveness: true, flags: exitsAtOnce()}
		counts := s.livenessFails(web, s.load(s.deploy(web)), s.sicken)
		results.add("the app's liveness probe fails; the app exits at SIGTERM", v, counts, 0)
		s.judge(v, counts)
	})
}

// sicken makes the liveness probe of e2e/app fail until the app is restarted.
func (s *scenario) sicken(pod string) {
	s.Helper()
	_, err := s.post(pod, appPort, "/sick")
	s.must("making the app sick", err)
}

// livenessFails makes the app of one pod sick. When the app has been restarted and
// answers again, livenessFails returns the clients' counts.
func (s *scenario) livenessFails(web app, clients clients, sicken func(pod string)) load.Counts {
	s.Helper()
	pod := s.podsOf(web)[0]
	sick := pod.Name
	sicken(sick)
	s.waitForPods("the app is restarted, and its pod ready again", func(pods []*corev1.Pod) bool {
		p := byName(pods, sick)
		return p != nil && restarts(p, "app") == 1 && isReady(p)
	})
	s.eventually("the pod is in service again", s.answers(clients, pod))
	counts := clients.stop()
	if len(s.pods.terminations(web.name)) != 0 {
		s.Error("a pod is gone, want its app only restarted")
	}
	if web.variant.lastcall() {
		s.eventually("the drain is taken back", s.phaseIs(sick, "serving"))
		s.ended(sick, "drained") // before the app was stopped
		if n := restarts(byName(s.pods.now(), sick), sidecarName); n != 0 {
			s.Errorf("the sidecar was restarted %d times", n)
		}
	}
	return counts
}

// answers returns a function that reports whether the pod has answered clients since the
// call of answers. The pod is identified by its name or its address in the counts.
func (s *scenario) answers(c clients, pod *corev1.Pod) func(context.Context) (bool, error) {
	of := func(counts load.Counts) int64 {
		return counts.Pods[pod.Name] + counts.Pods[fmt.Sprintf("%s:%d", pod.Status.PodIP, appPort)]
	}
	before := of(c.now())
	return func(context.Context) (bool, error) {
		now, err := c.counts()
		return err == nil && of(now) > before, err
	}
}

// A sidecar that is killed while serving is restarted and then works as before.
func TestSidecarKilledWhileServing(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 2, variant: v, shareProcesses: true}
		clients := s.load(s.deploy(web))
		pod := s.podsOf(web)[0]
		_, err := s.post(pod.Name, appPort, "/kill?program=lastcall")
		s.must("killing the sidecar", err)
		s.waitForPods("the sidecar is restarted, and its pod ready again", func(pods []*corev1.Pod) bool {
			p := byName(pods, pod.Name)
			return p != nil && restarts(p, sidecarName) == 1 && isReady(p)
		})
		s.restart(web)
		clients.more(20)
		counts := clients.stop()
		results.add("the sidecar is killed while serving, then a rolling restart", v, counts, s.longest(web))
		s.judge(v, counts)
		s.ended(pod.Name, "drained")
	})
}

// If a sidecar is killed in the middle of a drain, the app must rely on its own shutdown:
// the hook fails, and the app gets SIGTERM at once.
func TestSidecarKilledWhileDraining(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		// After the kill, nothing waits for a slow kube-proxy, so the earlier waits are
		// longer here. The app's own shutdown waits for its requests.
		web := app{name: "web", replicas: 2, variant: v, shareProcesses: true, flags: []string{"-patience", "40s"}, lastcall: map[string]string{"LASTCALL_ENDPOINTS_WAIT": "8s", "LASTCALL_QUIET": "5s"}}
		// The requests last much longer than the wait for kube-proxy. They keep the drain
		// in its last phase.
		clients := s.load(s.deploy(web), "-rate", "10", "-shortest", "20s", "-longest", "25s")
		pod := s.podsOf(web)[0]
		s.eventually("the pod has requests in flight", s.hasInFlight(pod.Name))
		s.deleted(pod)
		s.eventually("the drain has come to its last part", s.phaseIs(pod.Name, "draining"))
		_, err := s.post(pod.Name, appPort, "/kill?program=lastcall")
		s.must("killing the sidecar", err)
		s.replaced(web, uids([]*corev1.Pod{pod}))
		clients.more(20)
		counts := clients.stop()
		results.add("the sidecar is killed in the middle of a drain", v, counts, s.longest(web))
		s.judge(v, counts)
		if got := s.outcomes(pod.Name); len(got) != 0 {
			s.Errorf("the drain ended: %q, want it cut off", got)
		}
		if longest := s.longest(web); longest >= web.gracePeriod() {
			s.Errorf("the pod took %v to go, want less than its grace period", longest)
		}
	})
}

// The budget ends while a request is still in flight, and the app hangs. The pod ends on
// time, and events, metrics and the log show the reason. The sidecar runs as long as the
// app listens, so its metrics can be read.
func TestBudgetTooShort(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		s.allowEvents()
		web := app{name: "web", replicas: 1, variant: v, grace: 10 * time.Second, flags: []string{"-deaf"}}
		address := s.service(web.name)
		pod := s.withEvents(web)
		clients := s.load(address, "-shortest", "1m", "-longest", "1m")
		s.deleted(pod)
		s.eventually("the metric tells it", func(context.Context) (bool, error) {
			metrics, err := s.get(pod.Name, sidecarPort, "/metrics")
			return strings.Contains(string(metrics), `lastcall_drain_duration_seconds_count{outcome="expired"} 1`), err
		})
		events := s.told(pod, "Draining", "DrainExpired")
		s.saidLast(web, events) // even if the sidecar gets SIGTERM only at the end of the grace period
		s.ended(pod.Name, "expired")
		s.onTime(web)
		// The clients also see that their requests were cut off.
		if counts := clients.stop(); counts.Failed == 0 {
			s.Error("no request has failed, want those that were longer than the grace period")
		}
	})
}

// onTime fails the test if no pod of the app has ended, or one took longer than its grace
// period and the time that the kubelet needs afterwards.
func (s *scenario) onTime(a app) {
	s.Helper()
	const afterwards = 20 * time.Second // on a busy machine
	if longest := s.longest(a); longest == 0 || longest > a.gracePeriod()+afterwards {
		s.Errorf("a pod took %v to go, want its grace period of %v and little more", longest, a.gracePeriod())
	}
}

// Neither the app nor its client closes a WebSocket. LASTCALL_TCP_COUNT decides whether
// the drain waits for it. It waits at most until the budget ends.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		count   string // LASTCALL_TCP_COUNT
		every   string // time between messages
		outcome string
	}{
		"requests, idle": {"requests", "0s", "drained"},
		"active, idle":   {"active", "0s", "drained"},
		"active, busy":   {"active", "200ms", "expired"},
		"open, idle":     {"open", "0s", "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, []variant{native}, func(s *scenario, v variant) {
				web := app{name: "web", replicas: 1, variant: v, grace: 25 * time.Second, lastcall: map[string]string{
					"LASTCALL_TCP_COUNT":   c.count,
					"LASTCALL_TCP_SILENCE": "5s", // with the default, a young app's connection stays in doubt longer
				}}
				address := s.deploy(web)
				s.runClient("socket", "socket", "-url", "ws://"+address+"/socket", "-every", c.every)
				s.eventually("the socket is open, and answered", func(context.Context) (bool, error) {
					var state struct {
						Open    bool
						Answers int
					}
					body, err := s.get("socket", clientPort, "/counts")
					if err == nil {
						err = json.Unmarshal(body, &state)
					}
					return state.Open && state.Answers > 0, err
				})
				pod := s.podsOf(web)[0]
				s.deleted(pod)
				s.replaced(web, uids([]*corev1.Pod{pod}))
				s.ended(pod.Name, c.outcome)
				s.Logf("the pod took %v to go", s.longest(web))
				s.onTime(web)
			})
		})
	}
}

// ended waits until the logs of a pod's sidecars show drains with exactly these outcomes.
// The logs arrive late, because they are read through the API server.
func (s *scenario) ended(pod string, outcomes ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("the log of %s tells of drains: %q", pod, outcomes), func(context.Context) (bool, error) {
		got := s.outcomes(pod)
		return slices.Equal(got, outcomes), fmt.Errorf("the outcomes are %q", got)
	})
}

// endedAs waits until the logs show exactly one drain, with one of these outcomes.
func (s *scenario) endedAs(pod string, anyOf ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("the log of %s tells of one drain, as one of %q", pod, anyOf), func(context.Context) (bool, error) {
		got := s.outcomes(pod)
		return len(got) == 1 && slices.Contains(anyOf, got[0]), fmt.Errorf("the outcomes are %q", got)
	})
}

// outcomes returns the outcomes of a pod's drains, read from its sidecars' logs.
func (s *scenario) outcomes(pod string) []string {
	var outcomes []string
	for name, log := range s.pods.logs() {
		if !strings.HasPrefix(name, pod+"/") {
			continue
		}
		for line := range strings.Lines(log) {
			var entry struct{ Outcome string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Outcome != "" {
				outcomes = append(outcomes, entry.Outcome)
			}
		}
	}
	return outcomes
}

// phaseIs returns a function that reports whether a pod's sidecar is in a phase.
func (s *scenario) phaseIs(pod, phase string) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		var status struct{ Phase string }
		body, err := s.get(pod, sidecarPort, "/status")
		if err == nil {
			err = json.Unmarshal(body, &status)
		}
		return status.Phase == phase, err
	}
}

// hasInFlight returns a function that reports whether a pod's sidecar counts requests in
// flight.
func (s *scenario) hasInFlight(pod string) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		var status struct {
			InFlight int `json:"in_flight"`
		}
		body, err := s.get(pod, sidecarPort, "/status")
		if err == nil {
			err = json.Unmarshal(body, &status)
		}
		return status.InFlight > 0, err
	}
}

func byName(pods []*corev1.Pod, name string) *corev1.Pod {
	for _, p := range pods {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func restarts(pod *corev1.Pod, container string) int32 {
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.Name == container {
			return c.RestartCount
		}
	}
	return -1
}
