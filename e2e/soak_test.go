//go:build soak

package e2e

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	soakRestarts = flag.Int("restarts", 100, "how many rolling restarts in a row")
	soakWrite    = flag.String("soak", "", "file in which the result is written between its markers")
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
			break // the evidence is fresh
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
	fmt.Println(text)
	if *soakWrite != "" {
		s.must("writing the result", writeBetweenMarkers(*soakWrite, "soak", text))
	}
}
