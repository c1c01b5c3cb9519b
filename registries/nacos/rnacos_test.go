//go:build nacos

package nacos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
	"lastcall/registries/registrytest"
)

// rnacos has the HTTP API v1 and one layer: a registration enables an instance.
func TestRnacosSuite(t *testing.T) {
	t.Parallel()
	s := servers.StartRnacos(t)
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprintf("with a server that is down %v", broken), func(t *testing.T) {
			registrytest.Run(t, func(*testing.T) registrytest.Harness {
				h := newHarness(nil, s.URL, beats)
				if broken {
					h.cfg.URLs = []string{dead, s.URL}
				}
				return h
			})
		})
	}
}

// A registration during a drain enables the instance, and the plug-in withdraws
// it again.
func TestRnacosRegistrationDuringADrain(t *testing.T) {
	t.Parallel()
	s := servers.StartRnacos(t)
	h := newHarness(nil, s.URL, beats)
	h.weight = 5
	h.Register(t)
	r := h.plugIn(t)
	for range 2 {
		wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
		do(t, "Withdraw", r.Withdraw)
		wait.Until(t, "Withdrawn", func() bool { return isWithdrawn(t, r) })
		if h.Listed(t) {
			t.Fatal("Withdrawn reports true, but a client gets the instance")
		}
		h.Register(t)
	}
	do(t, "Withdraw", r.Withdraw)
	do(t, "Restore", r.Restore)
	wait.Until(t, "the instance being listed", func() bool { return h.Listed(t) })
	var list struct{ Hosts []host }
	h.get(t, "/v1/ns/instance/list", h.form(), &list)
	if len(list.Hosts) != 1 || list.Hosts[0].Weight != 5 || list.Hosts[0].Metadata["version"] != "3" {
		t.Errorf("in service again as %+v", list.Hosts)
	}
}

// The Java client is used on both sides: by a provider that has registered by
// gRPC, and by a consumer that has subscribed.
func TestJavaClient(t *testing.T) {
	t.Parallel()
	s := servers.StartRnacos(t)
	consumer := servers.StartNacosConsumer(t, s, "orders")
	provider := servers.StartNacosProvider(t, s, "orders", 5)
	other := servers.StartNacosProvider(t, s, "orders", 1)
	would := func(p *servers.NacosApp, weight string) bool {
		return strings.Contains(ask(t, http.MethodGet, consumer.URL), fmt.Sprintf("127.0.0.1:%d %s\n", p.Port, weight))
	}
	wait.Until(t, "the consumer knowing both", func() bool { return would(provider, "5.0") && would(other, "1.0") })

	h := newHarness(nil, s.URL, grpc)
	h.cfg.Services = []string{"orders"}
	h.pod = drain.Pod{Name: "orders-0", IP: "127.0.0.1", AppPort: provider.Port}
	r := h.plugIn(t)
	withdraw := func() {
		t.Helper()
		do(t, "Withdraw", r.Withdraw)
		wait.Until(t, "Withdrawn", func() bool { return isWithdrawn(t, r) })
		began := time.Now()
		wait.Until(t, "the consumer leaving it", func() bool { return !would(provider, "5.0") })
		t.Logf("the consumer left it %v after Withdrawn", time.Since(began).Round(time.Millisecond))
		if !would(other, "1.0") {
			t.Error("the other provider is not called any more")
		}
	}
	withdraw()
	do(t, "Restore", r.Restore)
	wait.Until(t, "the consumer coming back", func() bool { return would(provider, "5.0") })
	withdraw()
	ask(t, http.MethodPost, provider.URL) // it registers again
	wait.Until(t, "the registration being seen", func() bool { return !isWithdrawn(t, r) })
	withdraw()
	do(t, "Deregister while the app lives", r.Deregister)
	if !isWithdrawn(t, r) {
		t.Error("Deregister has put it back into service")
	}
	provider.Kill()
	do(t, "Deregister", r.Deregister)
	if !isWithdrawn(t, r) || would(provider, "5.0") {
		t.Error("it is listed after its app's end")
	}
}

// rnacos, where the sidecar registers the app.
func TestRnacosRegistrarSuite(t *testing.T) {
	t.Parallel()
	s := servers.StartRnacos(t)
	registrytest.RunRegistrar(t, func(*testing.T) registrytest.RegistrarHarness { return register(newHarness(nil, s.URL, beats)) })
}

// The Java client discovers an app that the sidecar has registered, and stops
// using it in a drain.
func TestJavaClientOfARegisteredApp(t *testing.T) {
	t.Parallel()
	s := servers.StartRnacos(t)
	consumer := servers.StartNacosConsumer(t, s, "orders")
	h := newHarness(nil, s.URL, beats)
	h.cfg.Services = []string{"orders"}
	r := register(h).plugIn(t)
	would := func() bool {
		return strings.Contains(ask(t, http.MethodGet, consumer.URL), fmt.Sprintf("%s:%d 1.0\n", h.pod.IP, h.pod.AppPort))
	}
	ready := func(ready bool) {
		do(t, "Register", func(ctx context.Context) error { return r.Register(ctx, ready) })
	}
	ready(true)
	wait.Until(t, "the consumer knowing it", would)
	ready(false)
	wait.Until(t, "the consumer leaving an app that is not ready", func() bool { return !would() })
	ready(true)
	wait.Until(t, "the consumer knowing it again", would)
	do(t, "Withdraw", r.Withdraw)
	wait.Until(t, "the consumer leaving it", func() bool { return !would() })
	do(t, "Deregister", r.Deregister)
	if would() {
		t.Error("it is called after it was deregistered")
	}
}

func ask(t *testing.T, method, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: status %d, %v", method, url, resp.StatusCode, err)
	}
	return string(body)
}
