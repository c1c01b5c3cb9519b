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
	// The policy excludes kube-system: there the API server adds only its defaults.
	team, untouched = "team", "kube-system"
)

// TestPolicyGivesTheSame creates each pod of the corpus on a real API server with the
// policy in deploy/policy. It compares the result with that of inject.Pod, created in
// a namespace that the policy excludes, where the API server adds its defaults.
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
	s.Wait(t, func() error { // without the parameters, a pod with the label is rejected
		_, err := s.DryRun(t, team, plain.Pod)
		if status := new(apiservertest.StatusError); errors.As(err, &status) && status.Code == http.StatusForbidden {
			return nil
		}
		return fmt.Errorf("want it to be refused, got %w", err)
	})
	// The API server receives changed parameters some moments later. Cases with their
	// own parameters therefore come last, one after another.
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

// useParameters creates the case's parameters in the cluster, and waits until the
// policy uses them. A variable in the parameters identifies the case.
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

// policyFile reads a file of deploy/policy, with the API version that this version of
// Kubernetes serves.
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
