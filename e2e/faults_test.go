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

// The kubelet restarts an app whose liveness probe fails, by way of its preStop
// hook. The pod stays, and is in service again afterwards.
func TestLivenessFails(t *testing.T) {
	each(t, []variant{native, classic, bare, sleep30}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 2, variant: v, liveness: true, flags: exitsAtOnce()}
		counts := s.livenessFails(web, s.load(s.deploy(web)), s.sicken)
		results.add("the app's liveness probe fails; the app exits at SIGTERM", v, counts, 0)
		s.judge(v, counts)
	})
}

// sicken makes the liveness probe of e2e/app fail, until it is restarted.
func (s *scenario) sicken(pod string) {
	s.Helper()
	_, err := s.post(pod, appPort, "/sick")
	s.must("making the app sick", err)
}

// livenessFails makes the app of one pod sick, and returns what clients have
// seen when that has been restarted and answers them again.
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

// answers reports whether the pod has answered clients since it was called first.
// An app that does not tell its pod's name is known by its address.
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

// A sidecar that dies while it serves is started again, and is none the worse.
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

// A sidecar that dies in the middle of a drain leaves the app to its own
// shutdown: the hook fails, and the app gets its SIGTERM at once.
func TestSidecarKilledWhileDraining(t *testing.T) {
	each(t, []variant{native, classic}, func(s *scenario, v variant) {
		// Nobody is left to see that kube-proxy is late: it is given more time. The
		// app's own shutdown waits for its requests.
		web := app{name: "web", replicas: 2, variant: v, shareProcesses: true, flags: []string{"-patience", "40s"}, lastcall: map[string]string{"LASTCALL_ENDPOINTS_WAIT": "8s", "LASTCALL_QUIET": "5s"}}
		// Requests that last far longer than the wait for kube-proxy hold the
		// drain in its last part.
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

// The budget ends while a request is still in flight, and the app hangs. The
// pod goes on time, and people can see what happened: as long as the app holds
// on to its port the sidecar stays too, so that its metrics can be read.
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
		s.saidLast(web, events) // also where the sidecar is told to stop when the grace period is over
		s.ended(pod.Name, "expired")
		s.onTime(web)
		// The clients, too, see that their requests were cut off.
		if counts := clients.stop(); counts.Failed == 0 {
			s.Error("no request has failed, want those that were longer than the grace period")
		}
	})
}

// onTime fails the test if a pod of the app took longer to go than its grace
// period, and what the kubelet needs afterwards.
func (s *scenario) onTime(a app) {
	s.Helper()
	const afterwards = 20 * time.Second // on a busy machine
	if longest := s.longest(a); longest == 0 || longest > a.gracePeriod()+afterwards {
		s.Errorf("a pod took %v to go, want its grace period of %v and little more", longest, a.gracePeriod())
	}
}

// An app never closes a WebSocket, nor does its client. What is counted says
// whether it is waited for; the budget ends it in any case.
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
			each(t, []variant{native, classic}, func(s *scenario, v variant) {
				web := app{name: "web", replicas: 1, variant: v, grace: 25 * time.Second, lastcall: map[string]string{
					"LASTCALL_TCP_COUNT":   c.count,
					"LASTCALL_TCP_SILENCE": "5s", // the app is young: by itself Lastcall would be in doubt for longer
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

// ended waits until the logs of a pod's sidecars, which come by way of the API
// server, tell of drains with these outcomes, and no other.
func (s *scenario) ended(pod string, outcomes ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("the log of %s tells of drains: %q", pod, outcomes), func(context.Context) (bool, error) {
		got := s.outcomes(pod)
		return slices.Equal(got, outcomes), fmt.Errorf("the outcomes are %q", got)
	})
}

// endedAs waits for one drain, with one of these outcomes.
func (s *scenario) endedAs(pod string, anyOf ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("the log of %s tells of one drain, as one of %q", pod, anyOf), func(context.Context) (bool, error) {
		got := s.outcomes(pod)
		return len(got) == 1 && slices.Contains(anyOf, got[0]), fmt.Errorf("the outcomes are %q", got)
	})
}

// outcomes returns how the drains of a pod ended, from its sidecar's log.
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

// phaseIs reports whether a pod's drain is in a phase.
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

// hasInFlight reports whether a pod's sidecar counts requests in flight.
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
