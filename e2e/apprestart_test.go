package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// backWithin is how long a pod may take until it is ready again, from when its
// app listens again. It is much, for a busy machine; a pod that is left out is
// so for ever.
const backWithin = 30 * time.Second

// hungGrace is the grace period of apps that hang: it is waited for.
const hungGrace = 12 * time.Second

// appRestart is a way in which the kubelet restarts an app.
type appRestart struct {
	app    app
	change func(*corev1.PodSpec) // nil: nothing
	// sick are the ports of the apps in the pod of that number that become sick;
	// nil: the app's.
	sick func(pod int) []int
	// restarted are the containers that are restarted; nil: the app's.
	restarted func(pod int) []string
	// stays is how much later than backWithin the pod may be back.
	stays time.Duration
	// classic selects a classic sidecar as well. An app's restart is the same to both;
	// in these cases they could draw different conclusions from it.
	classic bool
}

// An app that the kubelet restarts always comes back: its pod is ready again,
// however the restart went.
func TestAppIsRestarted(t *testing.T) {
	t.Parallel()
	hung := []string{"-deaf"}
	ports := [][]int{{appPort + 1}, {appPort}, {appPort, appPort + 1}}
	containers := [][]string{{"second"}, {"app"}, {"app", "second"}}
	for name, c := range map[string]appRestart{
		// It does not react to SIGTERM. Its port is closed for a moment only.
		"hung": {app: app{grace: hungGrace, flags: hung}, classic: true},
		"hung, counters are polled every second": {app: app{
			grace: hungGrace, flags: hung, lastcall: map[string]string{"LASTCALL_POLL": "1s"},
		}},
		"counters are polled every second": {app: app{
			flags: exitsAtOnce(), lastcall: map[string]string{"LASTCALL_POLL": "1s"},
		}},
		// Each of two containers, and both.
		"one of two containers": {
			app:       app{flags: exitsAtOnce(), lastcall: map[string]string{"LASTCALL_APP_PORT": fmt.Sprintf("%d,%d", appPort, appPort+1)}},
			change:    addSecond,
			sick:      func(pod int) []int { return ports[pod%len(ports)] },
			restarted: func(pod int) []string { return containers[pod%len(containers)] },
		},
		// The kubelet gives up its hook in the middle of the drain.
		"the probe's grace period is shorter than the drain": {app: app{
			probeGrace: 2 * time.Second, flags: exitsAtOnce(), lastcall: map[string]string{"LASTCALL_ENDPOINTS_WAIT": "10s"},
		}, classic: true},
		"hung, the probe's grace period is shorter than the drain": {app: app{
			probeGrace: 2 * time.Second, flags: hung, lastcall: map[string]string{"LASTCALL_ENDPOINTS_WAIT": "10s"},
		}},
		"the pod's grace period is shorter than the drain": {app: app{
			grace: 3 * time.Second, flags: exitsAtOnce(), lastcall: map[string]string{"LASTCALL_GRACE_PERIOD": "60s", "LASTCALL_ENDPOINTS_WAIT": "10s"},
		}, classic: true},
		// An app that has never listened cannot be known to be restarted: its pod
		// is back when the grace period is over.
		"the startup probe fails": {
			app:    app{grace: 12 * time.Second, flags: append(exitsAtOnce(), "-hangs-once", "/lastcall/has-hung")},
			change: func(spec *corev1.PodSpec) { spec.Containers[0].StartupProbe.FailureThreshold = 4 },
			sick:   func(int) []int { return nil },
			stays:  12 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			variants := []variant{native}
			if c.classic {
				variants = append(variants, classic)
			}
			each(t, variants, func(s *scenario, v variant) {
				c.app.variant = v
				s.appIsRestarted(c)
			})
		})
	}
}

// addSecond adds a second container like the app's, at the next port.
func addSecond(spec *corev1.PodSpec) {
	second := spec.Containers[0].DeepCopy()
	const port = appPort + 1
	second.Name = "second"
	second.Args = append(second.Args, "-listen", fmt.Sprintf(":%d", port))
	second.Ports[0].ContainerPort = port
	for _, p := range []*corev1.Probe{second.ReadinessProbe, second.StartupProbe, second.LivenessProbe} {
		p.HTTPGet.Port.IntVal = port
	}
	spec.Containers = append(spec.Containers, *second)
}

// appIsRestarted has the apps of some pods restarted, side by side, and checks
// that each pod is in service again.
func (s *scenario) appIsRestarted(c appRestart) {
	s.Helper()
	web := c.app
	web.name, web.replicas, web.liveness = "web", *times, true
	spec := web.podSpec()
	if c.change != nil {
		c.change(&spec)
	}
	s.createDeployment(web, spec)
	sick, restarted := c.sick, c.restarted
	if restarted == nil {
		restarted = func(int) []string { return []string{"app"} }
	}
	if sick == nil {
		sick = func(int) []int { return []int{appPort} }
	}
	if len(sick(0)) > 0 { // else they are not ready before
		s.ready(web)
	}
	s.waitForPods("the pods", func(pods []*corev1.Pod) bool { return len(ofApp(pods, web.name)) == web.replicas })
	pods := s.podsOf(web)
	for i, pod := range pods {
		for _, port := range sick(i) {
			_, err := s.post(pod.Name, port, "/sick")
			s.must("making an app sick", err)
		}
	}
	for i, pod := range pods {
		names := restarted(i)
		s.waitForPods(fmt.Sprintf("%v of %s are restarted", names, pod.Name), func(pods []*corev1.Pod) bool {
			p := byName(pods, pod.Name)
			return p != nil && !slices.ContainsFunc(names, func(name string) bool { return restarts(p, name) != 1 || !runs(p, name) })
		})
	}
	s.backInService(web, pods, backWithin+c.stays)
	for i, p := range s.podsOf(web) {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			want := int32(0)
			if slices.Contains(restarted(i), c.Name) {
				want = 1
			}
			if c.RestartCount != want {
				s.Errorf("%s of %s was restarted %d times, want %d", c.Name, p.Name, c.RestartCount, want)
			}
		}
	}
}

// backInService waits until the pods of the app, whose apps listen again, are
// ready and their sidecars serve, and fails the test if that takes longer than
// within, or another pod is among them.
func (s *scenario) backInService(a app, pods []*corev1.Pod, within time.Duration) {
	s.Helper()
	began := time.Now()
	var slowest time.Duration
	for _, pod := range pods {
		serves := s.phaseIs(pod.Name, "serving")
		s.within(max(within-time.Since(began), time.Second), pod.Name+" is in service again", func(ctx context.Context) (bool, error) {
			p := byName(s.pods.now(), pod.Name)
			if p == nil || !isReady(p) {
				return false, errors.New("it is not ready")
			}
			serving, err := serves(ctx)
			return serving, errors.Join(errors.New("its sidecar does not serve"), err)
		})
		slowest = time.Since(began)
	}
	s.Logf("%d pods are in service again %.1f s after their apps run", len(pods), slowest.Seconds())
	if now := s.podsOf(a); !slices.EqualFunc(now, pods, func(a, b *corev1.Pod) bool { return a.UID == b.UID }) {
		s.Errorf("there are %d pods, and not those of before", len(now))
	}
	for _, p := range s.podsOf(a) {
		if !isReady(p) {
			s.Errorf("%s was ready, and is no longer", p.Name)
		}
	}
}

// runs reports whether a container of a pod does.
func runs(pod *corev1.Pod, container string) bool {
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.Name == container {
			return c.State.Running != nil
		}
	}
	return false
}
