//go:build soak

package e2e

import (
	"flag"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lastcall/internal/test/mdtable"
)

var (
	soakRestarts = flag.Int("restarts", 100, "how many rolling restarts in a row")
	soakLiveness = flag.Int("liveness", 200, "how many restarts of hung apps, by their liveness probes")
	soakWrite    = flag.String("soak", "", "file in which the results are written between their markers")
)

// Many rolling restarts in a row, under constant load.
func TestSoak(t *testing.T) {
	s := startFor(t, time.Duration(*soakRestarts)*2*time.Minute)
	web := app{name: "web", replicas: 4, variant: native}
	clients := s.load(s.deploy(web))
	began := time.Now()
	for i := range *soakRestarts {
		s.restart(web)
		counts := clients.now()
		if counts.Failed > 0 {
			break // stops while the logs of the failure are recent
		}
		if (i+1)%10 == 0 {
			fmt.Printf("%d restarts in %v: %d requests, none failed\n", i+1, time.Since(began).Round(time.Second), counts.Requests)
		}
	}
	took := time.Since(began)
	clients.more(40)
	counts := clients.stop()
	s.noneFailed(counts)
	s.wentWell(web)
	if t.Failed() {
		return
	}
	text := fmt.Sprintf("%d rolling restarts of %d replicas in a row, in %.0f minutes: **%d of %d requests failed**. %d pods went, the slowest within %.1f s.\n\n%s\n",
		*soakRestarts, web.replicas, took.Minutes(), counts.Failed, counts.Requests, len(s.pods.terminations(web.name)), s.longest(web).Seconds(), s.where())
	s.soaked("soak", text)
}

// soaked prints a result, and writes it between the markers with that name.
func (s *scenario) soaked(markers, text string) {
	s.Helper()
	fmt.Println(text)
	if *soakWrite != "" {
		s.must("writing the result", mdtable.Write(*soakWrite, "make e2e", markers, text))
	}
}

// Apps that hang are restarted many times in a row, in several pods at the same time. Each
// pod must be in service again after each restart.
func TestSoakLiveness(t *testing.T) {
	const replicas = 5 // of each variant
	rounds := (*soakLiveness + 2*replicas - 1) / (2 * replicas)
	s := startFor(t, time.Duration(rounds)*10*time.Minute)
	var apps []app
	for _, v := range []variant{native, classic} {
		apps = append(apps, app{name: strings.Fields(string(v))[0], replicas: replicas, variant: v, grace: hungGrace, liveness: true, flags: []string{"-deaf"}})
	}
	for _, a := range apps {
		s.createDeployment(a, a.podSpec())
	}
	var pods []*corev1.Pod
	for _, a := range apps {
		s.ready(a)
		pods = append(pods, s.podsOf(a)...)
	}
	began := time.Now()
	var slowest time.Duration
	for round := 1; round <= rounds; round++ {
		for _, pod := range pods {
			s.sicken(pod.Name)
		}
		for _, pod := range pods {
			s.waitForPods(fmt.Sprintf("restart %d of the app of %s", round, pod.Name), func(pods []*corev1.Pod) bool {
				p := byName(pods, pod.Name)
				return p != nil && restarts(p, "app") == int32(round) && runs(p, "app")
			})
		}
		runAgain := time.Now()
		for _, a := range apps {
			s.backInService(a, s.podsOf(a), backWithin)
		}
		slowest = max(slowest, time.Since(runAgain))
		if round%5 == 0 {
			fmt.Printf("%d restarts in %v: no pod is left out\n", round*len(pods), time.Since(began).Round(time.Second))
		}
	}
	if now := append(s.podsOf(apps[0]), s.podsOf(apps[1])...); !maps.Equal(uids(now), uids(pods)) {
		s.Errorf("there are %d pods, and not those of the beginning", len(now))
	}
	if t.Failed() {
		return
	}
	s.soaked("liveness soak", fmt.Sprintf("%d restarts of apps that hang, by their liveness probes, in %d pods side by side (native and classic), in %.0f minutes: **0 pods were left out**. The slowest was in service again within %.1f s of its app's start.\n\n%s\n",
		rounds*len(pods), len(pods), time.Since(began).Minutes(), slowest.Seconds(), s.where()))
}
