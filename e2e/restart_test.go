package e2e

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/e2e/load"
)

// exitsAtOnce makes the app exit at SIGTERM, even with requests in flight.
func exitsAtOnce() []string { return []string{"-patience", "0s"} }

// A rolling restart of 4 replicas behind a Service, under constant load. The app finishes
// its requests after SIGTERM.
func TestRollingRestart(t *testing.T) {
	each(t, []variant{native, bare, sleep30}, func(s *scenario, v variant) {
		s.judge(v, s.rollingRestart("rolling restart of 4 replicas", app{name: "web", replicas: 4, variant: v}))
	})
}

// A rolling restart like the previous one, of an app that exits at SIGTERM.
func TestRollingRestartOfAnAppThatExits(t *testing.T) {
	each(t, []variant{native, classic, bare, sleep30}, func(s *scenario, v variant) {
		s.judge(v, s.rollingRestart("rolling restart of 4 replicas; the app exits at SIGTERM",
			app{name: "web", replicas: 4, variant: v, flags: exitsAtOnce()}))
	})
}

// restartsUntilFailed is the maximum number of restarts in the variant bare until a
// request fails. A request fails if kube-proxy is slower than the kubelet, which happens
// in nearly every restart.
const restartsUntilFailed = 5

// rollingRestart restarts the app under load and returns the clients' counts. In the
// variant bare, it repeats the restart until a request has failed. flags are the flags of
// the clients.
func (s *scenario) rollingRestart(name string, web app, flags ...string) load.Counts {
	s.Helper()
	clients := s.load(s.deploy(web), flags...)
	for n := 1; ; n++ {
		s.restart(web)
		clients.more(40)
		if web.variant != bare || n == restartsUntilFailed || clients.now().Failed > 0 {
			break
		}
	}
	counts := clients.stop()
	results.add(name, web.variant, counts, s.longest(web))
	s.wentWell(web)
	return counts
}

// A StatefulSet restarts its pods one after another. Each new pod has the same name as the
// previous one. How it fails without Lastcall is seen in
// TestRollingRestartOfAnAppThatExits.
func TestStatefulSet(t *testing.T) {
	each(t, []variant{native}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 3, variant: v, flags: exitsAtOnce()}
		s.createStatefulSet(web, web.podSpec())
		address := s.service(web.name)
		s.ready(web)
		clients := s.load(address)
		old := s.podsOf(web)
		s.restartStatefulSet(web)
		for i, p := range s.podsOf(web) {
			if p.Name != old[i].Name {
				s.Errorf("pod %s came back as %s", old[i].Name, p.Name)
			}
		}
		clients.more(40)
		counts := clients.stop()
		results.add("StatefulSet of 3 restarts; the app exits at SIGTERM", v, counts, s.longest(web))
		s.judge(v, counts)
		s.wentWell(web)
	})
}

// All pods end at the same time. Their requests in flight take longer than all of
// Lastcall's waits for new requests.
func TestScaleToZero(t *testing.T) {
	each(t, []variant{native, classic, bare}, func(s *scenario, v variant) {
		web := app{name: "web", replicas: 3, variant: v, flags: exitsAtOnce()}
		clients := s.load(s.deploy(web), "-shortest", "8s", "-longest", "12s")
		// A request that begins after the scaling finds no pod. So the clients begin no
		// more requests, and all those in flight must be answered.
		if counts := clients.finish(); counts.InFlight == 0 {
			s.Fatal("no request is in flight: the load is too weak")
		}
		s.scale(&web, 0)
		counts := clients.stop()
		results.add("3 replicas scale to zero, requests take 8 to 12 s; the app exits at SIGTERM", v, counts, s.longest(web))
		s.judge(v, counts)
		s.wentWell(web)
	})
}

// scale sets the number of the Deployment's replicas, and waits for it.
func (s *scenario) scale(a *app, replicas int) {
	s.Helper()
	s.scaleTo(*a, replicas)
	a.replicas = replicas
	s.ready(*a)
}

// scaleTo sets the number of the Deployment's replicas without waiting.
func (s *scenario) scaleTo(a app, replicas int) {
	s.Helper()
	kind, patch := ofReplicas(replicas)
	_, err := s.client.AppsV1().Deployments(s.namespace).Patch(s.ctx, a.name, kind, patch, metav1.PatchOptions{})
	s.must("scaling", err)
}
