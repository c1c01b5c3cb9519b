package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// kubectl drain evicts the pods of a node, as a PodDisruptionBudget lets it.
func TestNodeDrain(t *testing.T) {
	each(t, []variant{native, classic, bare}, func(s *scenario, v variant) {
		// kubectl selects pods in all namespaces: the label must be unique.
		web := app{name: s.namespace, replicas: 4, variant: v, flags: exitsAtOnce()}
		clients := s.load(s.deploy(web))
		least := intstr.FromInt(web.replicas - 1)
		_, err := s.client.PolicyV1().PodDisruptionBudgets(s.namespace).Create(s.ctx, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: web.name},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": web.name}}},
		}, metav1.CreateOptions{})
		s.must("creating a PodDisruptionBudget", err)

		pods := s.podsOf(web)
		node := pods[0].Spec.NodeName
		evicted := map[types.UID]bool{}
		for _, p := range pods {
			if p.Spec.NodeName == node {
				evicted[p.UID] = true
			}
		}
		s.drain(node, web)
		s.replaced(web, evicted)
		clients.more(40)
		counts := clients.stop()
		results.add("kubectl drain, PodDisruptionBudget of 3 of 4; the app exits at SIGTERM", v, counts, s.longest(web))
		s.judge(v, counts)
		s.wentWell(web)
	})
}

// drain runs kubectl drain for the app's pods. The node takes pods again as
// soon as it is cordoned: it may be the only one, and the budget asks for new
// pods before old ones go.
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
