package webhook_test

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
	for _, version := range apiservertest.Versions() {
		t.Run(version.Name, func(t *testing.T) { testPolicy(t, version) })
	}
}

func testPolicy(t *testing.T, version apiservertest.Version) {
	s := apiservertest.Start(t, version)
	for _, namespace := range []string{team, untouched, "lastcall-system"} {
		s.Namespace(t, namespace)
	}
	group := "/apis/admissionregistration.k8s.io/" + version.Policies
	s.Put(t, group+"/mutatingadmissionpolicies", "lastcall-inject", policyFile(t, version, "policy.yaml"))
	s.Put(t, group+"/mutatingadmissionpolicybindings", "lastcall-inject", policyFile(t, version, "binding.yaml"))

	cases := corpus.Read(t, corpusFolder)
	plain := cases[slices.IndexFunc(cases, func(c corpus.Case) bool { return c.Name == "plain" })]
	s.Wait(t, func() error { // without the parameters a pod with the label is refused
		_, err := s.DryRun(t, team, plain.Pod)
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
			useParameters(t, s, plain.Pod, &c)
			want, _ := inject.Pod(c.Pod, c.Parameters)
			wanted, err := s.DryRun(t, untouched, want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.DryRun(t, team, c.Pod)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wanted.Pod, got.Pod); diff != "" {
				t.Errorf("the policy gives another pod than Pod: - Pod, + policy\n%s", diff)
			}
		})
	}
}

// useParameters puts the case's parameters into the cluster, and waits until the
// policy uses them: a variable in them names the case.
func useParameters(t *testing.T, s *apiservertest.Server, probe *corev1.Pod, c *corpus.Case) {
	t.Helper()
	mark := corev1.EnvVar{Name: "LASTCALL_TEST_PARAMETERS", Value: "shared"}
	if c.OwnParameters {
		mark.Value = c.Name
	}
	c.ConfigMap.Data[mark.Name] = mark.Value
	var err error
	if c.Parameters, err = inject.ParseParameters(c.ConfigMap.Data); err != nil {
		t.Fatal(err)
	}
	s.Put(t, parameters, "lastcall-injection", c.ConfigMap)
	s.Wait(t, func() error {
		got, err := s.DryRun(t, team, probe)
		if err != nil {
			return err
		}
		for _, added := range got.Pod.Spec.InitContainers {
			if slices.Contains(added.Env, mark) {
				return nil
			}
		}
		return fmt.Errorf("the policy does not use the parameters of %s yet", mark.Value)
	})
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

// policyFile reads a file of deploy/policy as that version of Kubernetes serves it.
func policyFile(t *testing.T, version apiservertest.Version, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "policy", "v1", name))
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), "admissionregistration.k8s.io/v1\n", "admissionregistration.k8s.io/"+version.Policies+"\n")), &object); err != nil {
		t.Fatal(err)
	}
	return object
}
