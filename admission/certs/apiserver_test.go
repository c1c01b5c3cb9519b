package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lastcall/admission/certs"
	"lastcall/admission/inject"
	"lastcall/admission/internal/apiservertest"
	"lastcall/admission/webhook"
)

// TestAPIServer replaces two authorities while a real API server keeps calling two
// replicas, each call on a new connection. No pod can be created without the
// webhook. The replicas have the RBAC rules of deploy/admission.
func TestAPIServer(t *testing.T) {
	t.Parallel()
	s := apiservertest.Start(t, apiservertest.Versions()[0])
	for _, namespace := range []string{"team", "lastcall-system"} {
		s.Namespace(t, namespace)
	}
	_, client := s.Clients(t)
	s.Apply(t, "../../deploy/admission/server/rbac.yaml", "", nil)

	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h := &webhook.Handler{Parameters: func() (inject.Parameters, error) { return inject.Parameters{Image: "lastcall"}, nil }, Log: log}
	server := httptest.NewUnstartedServer(h.Mux())
	var replicas []*certs.Manager
	var connections atomic.Int64
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m := replicas[int(connections.Add(1))%len(replicas)]
		return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: m.Get}, nil
	}}
	server.Config.SetKeepAlivesEnabled(false)
	for range 2 {
		replicas = append(replicas, certs.New(certs.Config{
			Client: client, Namespace: "lastcall-system", Secret: "lastcall-admission-tls", Names: []string{"127.0.0.1"},
			Mutating: []string{"lastcall-inject"}, Validating: []string{"lastcall-check", "lastcall-gate"},
			Life: certs.Lifetimes{CA: 30 * time.Second, Leaf: 15 * time.Second}, Log: log,
		}))
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, part := range []string{"inject", "check"} {
		s.Apply(t, "../../deploy/admission/"+part+"/webhook.yaml", server.URL, nil)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, m := range replicas {
		running.Go(func() { m.Run(ctx) })
	}
	for _, m := range replicas {
		wait(t, m.Ready)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{inject.Label: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	creates := func() error {
		created, err := s.DryRun(t, "team", pod)
		if err == nil && len(created.Pod.Spec.InitContainers) == 0 {
			err = errors.New("the webhook was not asked")
		}
		return err
	}
	s.Wait(t, creates) // until the API server has received the webhook and its caBundle

	authorities := map[string]bool{}
	end := time.Now().Add(3 * time.Minute)
	calls, failed := 0, 0
	for len(authorities) < 3 && time.Now().Before(end) {
		calls++
		if err := creates(); err != nil {
			failed++
			t.Errorf("call %d: %v", calls, err)
		}
		for _, m := range replicas {
			pair, err := m.Get(nil)
			if err != nil {
				t.Fatal(err)
			}
			authorities[pair.Leaf.Issuer.CommonName] = true
		}
	}
	t.Logf("%d calls, %d failed, %d connections, %d authorities", calls, failed, connections.Load(), len(authorities))
	if len(authorities) < 3 || connections.Load() < int64(calls) {
		t.Error("too few authorities or connections")
	}
	config, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "lastcall-check", metav1.GetOptions{})
	if err != nil || !slices.Contains([]int{1, 2, 3}, len(config.Webhooks)) || len(config.Webhooks[0].ClientConfig.CABundle) == 0 {
		t.Errorf("lastcall-check has no caBundle: %v", err)
	}
}
