package inject_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"lastcall/admission/inject"
	"lastcall/admission/internal/apiservertest"
	"lastcall/admission/internal/corpus"
)

const (
	policies   = "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicies"
	bindings   = "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicybindings"
	parameters = "/api/v1/namespaces/lastcall-system/configmaps"
	// The policy leaves kube-system alone, so the API server adds nothing there
	// but its defaults.
	team, untouched = "team", "kube-system"
)

// TestPolicyGivesTheSame has a real API server create each pod of the corpus
// under the policy in deploy/policy, and compares it with what Pod returns, which
// the API server completes with its defaults in a namespace that the policy
// leaves alone.
func TestPolicyGivesTheSame(t *testing.T) {
	s := apiservertest.Start(t)
	for _, namespace := range []string{team, untouched, "lastcall-system"} {
		s.Namespace(t, namespace)
	}
	s.Put(t, policies, "lastcall-inject", policyFile(t, "policy.yaml"))
	s.Put(t, bindings, "lastcall-inject", policyFile(t, "binding.yaml"))

	cases := corpus.Read(t, "testdata")
	plain := cases[slices.IndexFunc(cases, func(c corpus.Case) bool { return c.Name == "plain" })]
	s.Wait(t, func() error { // without the parameters a pod with the label is refused
		_, err := create(t, s, team, plain.Pod)
		if status := new(apiservertest.StatusError); errors.As(err, &status) && status.Code == http.StatusForbidden {
			return nil
		}
		return fmt.Errorf("want it to be refused, got %w", err)
	})
	// The API server learns of other parameters some moments later, so cases with
	// parameters of their own come last and one after another.
	slices.SortStableFunc(cases, func(a, b corpus.Case) int { return boolCompare(a.OwnParameters, b.OwnParameters) })
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			s.Put(t, parameters, "lastcall-injection", c.ConfigMap)
			want, _ := inject.Pod(c.Pod, c.Parameters)
			wanted, err := create(t, s, untouched, want)
			if err != nil {
				t.Fatal(err)
			}
			var diff string
			same := func() error {
				got, err := create(t, s, team, c.Pod)
				if err != nil {
					diff = ""
					return err
				}
				if diff = cmp.Diff(wanted, got); diff != "" {
					return errors.New("the policy gives another pod than Pod: - Pod, + policy\n" + diff)
				}
				return nil
			}
			err = same()
			if err != nil && (c.OwnParameters || c.Name == cases[0].Name) {
				s.Wait(t, same)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// create has the API server create the pod, without keeping it, and returns it
// without what differs each time.
func create(t *testing.T, s *apiservertest.Server, namespace string, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	pod = pod.DeepCopy()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	no := false
	pod.Spec.AutomountServiceAccountToken = &no // its volume has a random name
	reply, err := s.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", pod)
	if err != nil {
		return nil, err
	}
	var created corev1.Pod
	if err := yaml.Unmarshal(reply.Body, &created); err != nil {
		return nil, err
	}
	created.UID, created.Namespace, created.ManagedFields = "", "", nil
	created.CreationTimestamp.Reset()
	return &created, nil
}

// policyFile reads a file of deploy/policy as 1.34 and 1.35 serve it.
func policyFile(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/policy/v1", name))
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), "admissionregistration.k8s.io/v1\n", "admissionregistration.k8s.io/v1beta1\n")), &object); err != nil {
		t.Fatal(err)
	}
	return object
}
