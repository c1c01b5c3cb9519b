package apiservertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Clients returns clients for the administrator and for the gate's ServiceAccount.
func (s *Server) Clients(t testing.TB) (admin, gate *kubernetes.Clientset) {
	t.Helper()
	client := func(token string) *kubernetes.Clientset {
		c, err := kubernetes.NewForConfig(&rest.Config{
			Host: s.url, BearerToken: token, QPS: 1000, Burst: 1000,
			TLSClientConfig: rest.TLSClientConfig{Insecure: true}, // as in Do
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return client(token), client(gateToken)
}

// Kubeconfig writes a kubeconfig for the gate's ServiceAccount and returns its path.
func (s *Server) Kubeconfig(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: gate,
contexts: [{name: gate, context: {cluster: test, user: gate}}], users: [{name: gate, user: {token: %s}}],
clusters: [{name: test, cluster: {server: %q, insecure-skip-tls-verify: true}}]}`, gateToken, s.url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Created is the result of DryRun.
type Created struct {
	Pod      *corev1.Pod
	Warnings []string
}

// DryRun sends the pod to the API server as a dry run. The result does not contain the
// fields that differ each time, nor the namespace.
func (s *Server) DryRun(t testing.TB, namespace string, pod *corev1.Pod) (Created, error) {
	t.Helper()
	pod = pod.DeepCopy()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	no := false
	pod.Spec.AutomountServiceAccountToken = &no // its volume has a random name
	reply, err := s.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", pod)
	if err != nil {
		return Created{}, err
	}
	var created corev1.Pod
	if err := json.Unmarshal(reply.Body, &created); err != nil {
		return Created{}, err
	}
	created.UID, created.Namespace, created.ManagedFields = "", "", nil
	created.CreationTimestamp.Reset()
	return Created{&created, reply.Warnings}, nil
}
