package certs_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lastcall/admission/certs"
)

// A replica that receives no more updates is trusted until its certificate expires,
// although another replica has replaced the authority meanwhile.
func TestReplicaThatHearsOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "lastcall-inject"}, Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "a"}, {Name: "b"}},
		})
		conflicts(client)
		var running sync.WaitGroup
		replica := func() (*certs.Manager, context.CancelFunc) {
			m := certs.New(certs.Config{
				Client: client, Namespace: "lastcall-system", Secret: "tls", Names: []string{service}, Mutating: []string{"lastcall-inject"},
				Life: certs.Lifetimes{CA: 24 * time.Hour, Leaf: 12 * time.Hour}, Log: slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(t.Context())
			running.Go(func() { m.Run(ctx) })
			synctest.Wait()
			return m, cancel
		}
		first, stop := replica()
		second, cut := replica()
		defer running.Wait()
		defer stop()

		leaf := func(m *certs.Manager) *x509.Certificate {
			pair, err := m.Get(nil)
			if err != nil {
				t.Fatal(err)
			}
			return pair.Leaf
		}
		began := leaf(first).Issuer.CommonName
		minute := time.NewTicker(time.Minute)
		defer minute.Stop()
		wasCut := false
		for leaf(first).Issuer.CommonName == began || time.Now().Before(leaf(second).NotAfter.Add(-time.Minute)) {
			<-minute.C
			synctest.Wait()
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(bundleOf(t, client))
			for name, m := range map[string]*certs.Manager{"first": first, "second": second} {
				if _, err := leaf(m).Verify(x509.VerifyOptions{Roots: roots, DNSName: service, CurrentTime: time.Now()}); err != nil {
					t.Fatalf("%s, after %s: %v", name, time.Since(leaf(first).NotBefore), err)
				}
			}
			if left := time.Until(leaf(second).NotAfter); !wasCut && leaf(second).Issuer.CommonName == began && left > 4*time.Hour && time.Since(leaf(second).NotBefore) < 2*time.Hour && len(nextOf(t, client)) > 0 {
				cut()
				wasCut = true
			}
		}
		if !wasCut || leaf(second).Issuer.CommonName != began {
			t.Error("the second replica was not cut off in time")
		}
		cut()
	})
}

// An authority that is made late, because no replica ran, signs nothing before API
// servers had time to receive the caBundles; also with a second replica that finds it
// in all of them.
func TestLateAuthorityWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "lastcall-inject"}, Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "a"}},
		})
		conflicts(client)
		start := func() (stop func()) {
			m := certs.New(certs.Config{
				Client: client, Namespace: "lastcall-system", Secret: "tls", Names: []string{service}, Mutating: []string{"lastcall-inject"},
				Life: certs.Defaults(), Log: slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { m.Run(ctx) })
			synctest.Wait()
			return func() {
				cancel()
				running.Wait()
			}
		}
		start()()
		<-time.After(certs.Defaults().CA * 9 / 10)
		defer start()()
		next := nextOf(t, client)
		if len(next) == 0 {
			t.Fatal("there is no next authority")
		}
		defer start()()
		<-time.After(4 * time.Minute)
		synctest.Wait()
		if !bytes.Equal(nextOf(t, client), next) {
			t.Fatal("it signs although API servers may not have the caBundles yet")
		}
		<-time.After(3 * time.Minute)
		synctest.Wait()
		if len(nextOf(t, client)) > 0 {
			t.Fatal("it does not sign 7 minutes later")
		}
	})
}

func nextOf(t *testing.T, client *fake.Clientset) []byte {
	t.Helper()
	secret, err := client.CoreV1().Secrets("lastcall-system").Get(t.Context(), "tls", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Data["next-ca.crt"]
}
