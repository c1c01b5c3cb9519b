package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	corev1 "k8s.io/api/core/v1"

	"lastcall/admission/inject"
	"lastcall/admission/internal/apiservertest"
	"lastcall/admission/internal/corpus"
	"lastcall/admission/webhook"
)

// TestAPIServer creates each pod of the corpus on a real API server with the webhook
// configuration of deploy/admission, and compares the result with that of inject.Pod.
func TestAPIServer(t *testing.T) {
	s := apiservertest.Start(t, apiservertest.Versions()[0])
	for _, namespace := range []string{"team", "kube-system"} {
		s.Namespace(t, namespace)
	}
	// The handler uses the parameters of the current case.
	var current corpus.Case
	h := handler(inject.Parameters{}, nil)
	h.Parameters = func() (inject.Parameters, error) { return current.Parameters, nil }
	url, ca := serve(t, h)
	for _, part := range []string{"inject", "check"} {
		s.Apply(t, "../../deploy/admission/"+part+"/webhook.yaml", url, ca)
	}

	cases := corpus.Read(t, corpusFolder)
	n := slices.IndexFunc(cases, func(c corpus.Case) bool { return c.Name == "plain" })
	current = cases[n]
	s.Wait(t, func() error { // until the API server calls the webhook
		got, err := s.DryRun(t, "team", current.Pod)
		if err != nil || len(got.Pod.Spec.InitContainers) == 0 {
			return fmt.Errorf("no sidecar yet: %w", errors.Join(err, errors.New("the webhook is not asked")))
		}
		return nil
	})
	for _, current = range cases {
		t.Run(current.Name, func(t *testing.T) {
			pod, warnings := inject.Pod(current.Pod, current.Parameters)
			want, err := s.DryRun(t, "kube-system", pod)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.DryRun(t, "team", current.Pod)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Pod, got.Pod); diff != "" {
				t.Errorf("- inject.Pod, + webhook\n%s", diff)
			}
			for _, warning := range warnings {
				if !slices.Contains(got.Warnings, warning) {
					t.Errorf("the warning %q is not among %q", warning, got.Warnings)
				}
			}
		})
	}
	t.Run("warnings", func(t *testing.T) { testWarnings(t, s) })
}

// testWarnings applies a Deployment as kubectl does, and checks the warnings.
func testWarnings(t *testing.T, s *apiservertest.Server) {
	app := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	app.Labels = map[string]string{"app": "web", inject.Label: "true"}
	app.Annotations = map[string]string{"lastcall/REGISTRIES": "eureka"}
	deployment := map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}, "template": app},
	}
	post := func() []string {
		reply, err := s.Do(t.Context(), http.MethodPost, "/apis/apps/v1/namespaces/team/deployments?dryRun=All", deployment)
		if err != nil {
			t.Fatal(err)
		}
		return reply.Warnings
	}
	has := func(warnings []string, text string) bool {
		return slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, text) })
	}
	if got := post(); !has(got, "terminationGracePeriodSeconds: 66") || !has(got, "minReadySeconds: 60") {
		t.Errorf("the warnings are %q", got)
	}
	delete(app.Labels, inject.Label)
	if got := post(); has(got, "lastcall") {
		t.Errorf("without the label: %q", got)
	}
}

// serve runs the server with a new certificate until the test ends.
func serve(t *testing.T, h *webhook.Handler) (url string, ca []byte) {
	t.Helper()
	caFile, certFile, keyFile := writeCertificate(t)
	certificate, err := webhook.NewCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l, certificate) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	ca, err = os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	return "https://" + l.Addr().String(), ca
}
