package gate_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/admission/gate"
)

// A sidecar that is gone does not hold its pod forever. A sidecar that was restarted
// and has lost its drain is asked to drain again.
func TestSidecars(t *testing.T) {
	for name, c := range map[string]struct {
		gone    time.Duration
		sidecar func(s *fakeSidecar, pod *corev1.Pod)
		why     string
	}{
		"gone":         {time.Second, func(s *fakeSidecar, _ *corev1.Pod) { s.server.Close() }, "the sidecar could not be asked"},
		"no address":   {time.Second, func(_ *fakeSidecar, pod *corev1.Pod) { pod.Status.PodIP = "" }, "the sidecar could not be asked"},
		"wrong token":  {time.Second, func(s *fakeSidecar, _ *corev1.Pod) { s.token = "x" }, "the sidecar could not be asked"},
		"its token":    {time.Hour, func(s *fakeSidecar, pod *corev1.Pod) { s.token = "x"; setToken(pod); drainsSoon(s) }, "drained"},
		"restarted":    {time.Hour, func(s *fakeSidecar, _ *corev1.Pod) { go func() { <-s.called; s.become("serving"); drainsSoon(s) }() }, "drained"},
		"expired once": {time.Hour, func(s *fakeSidecar, _ *corev1.Pod) { s.become("expired"); drainsSoon(s) }, "drained"},
	} {
		t.Run(name, func(t *testing.T) {
			sidecar := newSidecar(t)
			pod := sidecar.at(t, running("web-0"))
			c.sidecar(sidecar, pod)
			w := start(t, func(config *gate.Config) { config.Gone = c.gone }, pod)
			w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
			eventually(t, "the pod is deleted", func() bool { return w.pod(t, "web-0") == nil })
			saw := "" // the Event comes after the deletion
			late := time.After(patience)
			for !strings.Contains(saw, "GateOpened "+c.why) {
				select {
				case event := <-w.events.Events:
					saw += event + "\n"
				case <-late:
					t.Fatalf("events: %s", saw)
				}
			}
		})
	}
}

func setToken(pod *corev1.Pod) {
	pod.Spec.InitContainers[0].Env = []corev1.EnvVar{{Name: "LASTCALL_TOKEN", Value: "x"}}
}

func drainsSoon(s *fakeSidecar) {
	go func() { <-s.called; s.become("drained") }()
}

// After its timeout, a pod is released or held, depending on its annotation.
func TestTimeout(t *testing.T) {
	for _, c := range []struct{ after, then, event string }{
		{"1ms", "release", "GateOpened not drained within 1ms"},
		{"1ms", "", "GateHolding"},
		{"soon", "release", "GateMisconfigured"},
		{"1ms", "let go", "GateMisconfigured"},
	} {
		t.Run(c.after+" "+c.then, func(t *testing.T) {
			pod := newSidecar(t).at(t, running("web-0"))
			pod.Annotations[gate.Timeout], pod.Annotations[gate.OnTimeout] = c.after, c.then
			w := start(t, nil, pod)
			w.asks(t, setController, "web-0", &metav1.DeleteOptions{})
			late := time.After(patience)
			for saw := ""; !strings.Contains(saw, c.event); {
				select {
				case saw = <-w.events.Events:
				case <-late:
					t.Fatalf("no event %s", c.event)
				}
			}
			if opened := c.then == "release" && c.after != "soon"; !opened && w.pod(t, "web-0") == nil {
				t.Error("it is deleted")
			}
			if c.event == "GateHolding" {
				var text strings.Builder
				w.Metrics.Write(&text)
				if !strings.Contains(text.String(), "lastcall_gate_overdue_pods 1\n") {
					t.Errorf("metrics:\n%s", &text)
				}
			}
		})
	}
}
