package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lastcall/admission/certs"
)

// No call fails while two authorities are replaced, although API servers keep
// calling two replicas, each time on a new connection and with a caBundle that is
// some moments old.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset(
		&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "lastcall-inject"}, Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "a"}, {Name: "b"}}},
		&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "lastcall-gate"}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "c"}}},
	)
	conflicts(client)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var urls []string
	for range 2 {
		m := certs.New(certs.Config{
			Client: client, Namespace: "lastcall-system", Secret: "tls", Names: []string{"127.0.0.1"},
			Mutating: []string{"lastcall-inject", "not installed"}, Validating: []string{"lastcall-gate"},
			Life: certs.Lifetimes{CA: 18 * time.Second, Leaf: 9 * time.Second}, Log: slog.New(slog.DiscardHandler),
		})
		if _, err := m.Get(nil); err == nil {
			t.Error("a certificate before there is one")
		}
		running.Go(func() { m.Run(ctx) })
		wait(t, m.Ready)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		// httptest.Server has a certificate of its own and would not call GetCertificate
		// of its tls.Config.
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: m.Get}, nil
		}}
		server.StartTLS()
		t.Cleanup(server.Close)
		urls = append(urls, server.URL)
	}

	calls, failed := 0, 0
	seen := map[string]bool{}
	end := time.After(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	type read struct {
		at     time.Time
		bundle []byte
	}
	reads := []read{{time.Now(), bundleOf(t, client)}}
	for len(seen) < 3 {
		select {
		case <-end:
			t.Fatalf("%d authorities in two minutes", len(seen))
		case <-tick.C:
		}
		// The calls use the caBundle of half a second ago.
		reads = append(reads, read{time.Now(), bundleOf(t, client)})
		for len(reads) > 1 && time.Since(reads[1].at) > time.Second/2 {
			reads = reads[1:]
		}
		for _, url := range urls {
			issuer, err := call(t, url, reads[0].bundle)
			if time.Since(reads[0].at) > 900*time.Millisecond {
				continue // this machine paused: an authority signs 1 s after it is in the caBundles
			}
			calls++
			if err != nil {
				failed++
				t.Errorf("call %d: %v", calls, err)
				continue
			}
			seen[issuer] = true
		}
	}
	if calls < 100 {
		t.Errorf("only %d calls", calls)
	}
	t.Logf("%d calls, %d failed, %d authorities", calls, failed, len(seen))
}

func bundleOf(t *testing.T, client *fake.Clientset) []byte {
	t.Helper()
	mutating, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "lastcall-inject", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(mutating.Webhooks[1].ClientConfig.CABundle)
}

// call makes a call on a new connection and returns the certificate's issuer.
func call(t *testing.T, url string, bundle []byte) (string, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	if err := answer.Body.Close(); err != nil {
		return "", err
	}
	return fmt.Sprint(answer.TLS.PeerCertificates[0].Issuer), nil
}

func wait(t *testing.T, holds func() bool) {
	t.Helper()
	end := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-end:
			t.Fatal("not in a minute")
		case <-tick.C:
		}
	}
}
