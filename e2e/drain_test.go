package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// kubectl drain evicts the pods of a node, as far as a PodDisruptionBudget allows.
func TestNodeDrain(t *testing.T) {
	each(t, []variant{native, bare}, func(s *scenario, v variant) {
		// kubectl drain selects pods in all namespaces: the label must be unique.
		web := app{name: s.namespace, replicas: 4, variant: v, flags: exitsAtOnce()}
		clients := s.load(s.deploy(web))
		s.budget(web, web.replicas-1)
		s.drainNodeOf(web)
		clients.more(40)
		counts := clients.stop()
		results.add("kubectl drain, PodDisruptionBudget of 3 of 4; the app exits at SIGTERM", v, counts, s.longest(web))
		s.judge(v, counts)
		s.wentWell(web)
	})
}

// budget creates a PodDisruptionBudget of the app.
func (s *scenario) budget(a app, available int) {
	s.Helper()
	least := intstr.FromInt(available)
	_, err := s.client.PolicyV1().PodDisruptionBudgets(s.namespace).Create(s.ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: a.name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}}},
	}, metav1.CreateOptions{})
	s.must("creating a PodDisruptionBudget", err)
}

// drainNodeOf drains the node of the app's first pod, and waits until the app's pods
// there are replaced. It returns their number.
func (s *scenario) drainNodeOf(a app) int {
	s.Helper()
	pods := s.podsOf(a)
	node := pods[0].Spec.NodeName
	evicted := slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return p.Spec.NodeName != node })
	s.drain(node, a)
	s.replaced(a, uids(evicted))
	return len(evicted)
}

// drain runs kubectl drain for the app's pods. It uncordons the node as soon as kubectl
// has cordoned it: the node may be the only one, and the budget requires new pods before
// old ones may end.
func (s *scenario) drain(node string, a app) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, stepPatience)
	defer cancel()
	drain := exec.CommandContext(ctx, "kubectl", "drain", node, "--pod-selector", "app="+a.name, "--ignore-daemonsets", "--delete-emptydir-data")
	out, err := drain.StdoutPipe()
	s.must("kubectl drain", err)
	drain.Stderr = drain.Stdout
	s.must("kubectl drain", drain.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "cordoned") { // or "already cordoned", by another scenario
	}
	_, err = s.client.CoreV1().Nodes().Patch(s.ctx, node, types.StrategicMergePatchType, []byte(`{"spec":{"unschedulable":false}}`), metav1.PatchOptions{})
	s.must("uncordoning", err)
	var rest strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&rest, lines.Text())
	}
	if err := drain.Wait(); err != nil {
		s.Fatalf("kubectl drain: %v\n%s", err, rest.String())
	}
}
