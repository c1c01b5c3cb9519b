package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// kubectl drain evicts the pods of a node, as a PodDisruptionBudget lets it.
func TestNodeDrain(t *testing.T) {
	for _, v := range []variant{native, bare, sleep30} {
		t.Run(string(v), func(t *testing.T) {
			s := start(t)
			// kubectl selects pods in all namespaces: the label must be unique.
			web := app{name: s.namespace, replicas: 4, variant: v}
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
			results.add("kubectl drain, PodDisruptionBudget of 3 of 4", v, counts, s.longest(web))
			s.judge(v, counts)
		})
	}
}

// drain runs kubectl drain for the app's pods. The node takes pods again as
// soon as it is cordoned: it may be the only one, and the budget asks for new
// pods before old ones go.
func (s *scenario) drain(node string, a app) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 4*time.Minute)
	defer cancel()
	drain := exec.CommandContext(ctx, "kubectl", "drain", node, "--pod-selector", "app="+a.name, "--ignore-daemonsets", "--delete-emptydir-data")
	var out bytes.Buffer
	drain.Stdout, drain.Stderr = &out, &out
	s.must("kubectl", drain.Start())
	s.eventually("the node is cordoned", 30*time.Second, func(ctx context.Context) (bool, error) {
		n, err := s.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		return err == nil && n.Spec.Unschedulable, err
	})
	_, err := s.client.CoreV1().Nodes().Patch(s.ctx, node, types.StrategicMergePatchType, []byte(`{"spec":{"unschedulable":false}}`), metav1.PatchOptions{})
	s.must("uncordoning", err)
	if err := drain.Wait(); err != nil {
		s.Fatalf("kubectl drain: %v\n%s", err, out.String())
	}
}
