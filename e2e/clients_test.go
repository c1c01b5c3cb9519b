package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/e2e/load"
)

// clientPort is the port on which the clients in pods serve their counts.
const clientPort = 8080

// runClient runs a command of e2e/app in a new pod, and waits until it answers.
func (s *scenario) runClient(name string, args ...string) {
	s.Helper()
	_, err := s.client.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: new(false),
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "client", Image: appImage(), Args: args,
				SecurityContext: restricted(), Resources: corev1.ResourceRequirements{Requests: requests("10m", "16Mi")},
			}},
		},
	}, metav1.CreateOptions{})
	s.must("creating "+name, err)
	s.eventually(name+" runs", func(context.Context) (bool, error) {
		_, err := s.get(name, clientPort, "/counts")
		return err == nil, err
	})
}

// clients is a pod that makes a constant load.
type clients struct {
	s    *scenario
	name string
}

// load begins a constant load on address: 40 requests a second that take 0.1 to 3 s,
// half of them on kept connections. It returns when 40 have begun. flags are further
// flags of `app load`.
func (s *scenario) load(address string, flags ...string) clients {
	s.Helper()
	return s.loadBy(append([]string{"load", "-url", "http://" + address + "/work"}, flags...)...)
}

// loadBy begins a load by running a command of e2e/app.
func (s *scenario) loadBy(command ...string) clients {
	s.Helper()
	c := clients{s: s, name: "load"}
	s.runClient(c.name, command...)
	s.eventually("the load is under way", func(context.Context) (bool, error) {
		now, err := c.counts()
		return err == nil && now.Requests+now.InFlight >= 40, err
	})
	return c
}

func (c clients) counts() (load.Counts, error) {
	return decodeCounts(c.s.get(c.name, clientPort, "/counts"))
}

func decodeCounts(body []byte, err error) (load.Counts, error) {
	var counts load.Counts
	if err == nil {
		err = json.Unmarshal(body, &counts)
	}
	return counts, err
}

// now returns the counts while the load goes on.
func (c clients) now() (counts load.Counts) {
	c.s.Helper()
	c.s.eventually("the load tells its counts", func(context.Context) (bool, error) {
		var err error
		counts, err = c.counts()
		return err == nil, err
	})
	return counts
}

// more waits until n more requests have ended.
func (c clients) more(n int64) {
	c.s.Helper()
	enough := int64(-1)
	c.s.eventually("the load goes on", func(context.Context) (bool, error) {
		now, err := c.counts()
		if err == nil && enough < 0 {
			enough = now.Requests + n
		}
		return err == nil && now.Requests >= enough, err
	})
}

// finish makes the clients begin no more requests, and returns the counts at once.
func (c clients) finish() load.Counts {
	c.s.Helper()
	return c.tell("/finish")
}

// stop ends the load, waits for the requests in flight, and returns the counts.
func (c clients) stop() load.Counts {
	c.s.Helper()
	counts := c.tell("/stop")
	if counts.InFlight != 0 {
		c.s.must("stopping the load", errors.New("requests are still in flight"))
	}
	c.s.Logf("%d requests, %d failed %v; the longest delay of an answer was %.2f s%s", counts.Requests, counts.Failed, counts.Errors, counts.DelayMax, samples(counts))
	return counts
}

// tell sends the clients a command and returns their counts after it. It repeats the
// command if the answer is lost.
func (c clients) tell(command string) (counts load.Counts) {
	c.s.Helper()
	c.s.eventually("the load hears "+command, func(context.Context) (bool, error) {
		var err error
		counts, err = decodeCounts(c.s.post(c.name, clientPort, command))
		return err == nil, err
	})
	return counts
}

// noneFailed fails the test if a request has failed or none was made.
func (s *scenario) noneFailed(counts load.Counts) {
	s.Helper()
	if counts.Failed == 0 && counts.Requests > 0 {
		return
	}
	s.Errorf("%d of %d requests failed, want none", counts.Failed, counts.Requests)
}

// wentWell checks the ends of the app's pods, if they have Lastcall: each must have
// drained within its budget, and must have ended sooner than with sleep 30.
func (s *scenario) wentWell(a app) {
	s.Helper()
	if !a.variant.lastcall() {
		return
	}
	const sooner = 30 * time.Second
	lives := map[string]int{} // in a StatefulSet there are several pods of one name
	for _, end := range s.pods.terminations(a.name) {
		lives[end.pod.Name]++
		if end.took >= sooner {
			s.Errorf("%s took %v to go, want less than %v", end.pod.Name, end.took, sooner)
		}
	}
	if len(lives) == 0 {
		s.Error("no pod is gone")
	}
	for name, n := range lives {
		s.ended(name, slices.Repeat([]string{"drained"}, n)...)
	}
}

// samples formats the first failures, one on each line.
func samples(counts load.Counts) string {
	var out strings.Builder
	for _, f := range counts.Samples {
		fmt.Fprintf(&out, "\n  begun %s, failed after %.3f s (asked for %.3f s), kept connection %v: %s", f.Begun.Format("15:04:05.000"), f.Seconds, f.Asked, f.KeepAlive, f.Error)
	}
	return out.String()
}

// judge checks the counts of a scenario in which pods end. With Lastcall, no request
// may fail. In the variant bare some must fail, or else the load is too weak to prove
// anything. The result of `sleep 30` is only reported.
func (s *scenario) judge(v variant, counts load.Counts) {
	s.Helper()
	switch {
	case v.lastcall():
		s.noneFailed(counts)
	case v == bare && counts.Failed == 0:
		s.Errorf("none of %d requests failed without Lastcall: the load is too weak", counts.Requests)
	}
}
