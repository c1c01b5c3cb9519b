package e2e

import (
	"testing"
)

// A rolling restart of 4 replicas behind a Service, under constant load.
func TestRollingRestart(t *testing.T) {
	for _, v := range []variant{native, classic, bare, sleep30} {
		t.Run(string(v), func(t *testing.T) {
			s := start(t)
			web := app{name: "web", replicas: 4, variant: v}
			clients := s.load(s.deploy(web))
			s.restart(web)
			clients.more(40)
			counts := clients.stop()
			results.add("rolling restart of 4 replicas", v, counts, s.longest(web))
			s.judge(v, counts)
		})
	}
}
