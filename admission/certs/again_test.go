package certs_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lastcall/admission/certs"
)

// A replica whose first attempt fails becomes ready soon after the cause is gone.
// This happens because two replicas start at the same time, and because their RBAC
// rules may be created after them.
func TestTriesAgainSoon(t *testing.T) {
	webhooks := schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"}
	for name, c := range map[string]struct {
		verb, resource string
		err            error
		times          int
		within         time.Duration
	}{
		"another replica writes the caBundle first": {"update", webhooks.Resource, apierrors.NewConflict(webhooks, "lastcall-inject", errors.New("changed")), 1, time.Second},
		"it may not write the caBundle yet":         {"update", webhooks.Resource, apierrors.NewForbidden(webhooks, "lastcall-inject", errors.New("no")), 4, 10 * time.Second},
		"it may not read the Secret yet":            {"get", "secrets", apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "tls", errors.New("no")), 4, 10 * time.Second},
		"the API server is away":                    {"get", webhooks.Resource, errors.New("connection refused"), 4, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(&admissionregistrationv1.MutatingWebhookConfiguration{
					ObjectMeta: metav1.ObjectMeta{Name: "lastcall-inject"}, Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "a"}},
				})
				failed := 0
				client.PrependReactor(c.verb, c.resource, func(clienttesting.Action) (bool, runtime.Object, error) {
					failed++
					return failed <= c.times, nil, c.err
				})
				m := certs.New(certs.Config{
					Client: client, Namespace: "lastcall-system", Secret: "tls", Names: []string{service}, Mutating: []string{"lastcall-inject"},
					Life: certs.Defaults(), Log: slog.New(slog.DiscardHandler),
				})
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { m.Run(ctx) })
				defer running.Wait()
				defer cancel()
				synctest.Wait()
				if m.Ready() {
					t.Fatal("it is ready although it was not let")
				}
				<-time.After(c.within)
				synctest.Wait()
				if !m.Ready() {
					t.Errorf("it is not ready %s later", c.within)
				}
			})
		})
	}
}
