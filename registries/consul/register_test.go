package consul

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// fakeHarness runs the registrar suite against fakeConsul.
type fakeHarness struct {
	*fakeConsul
	url, in string
}

func (h fakeHarness) entries() []*api.ServiceEntry {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	return h.healthLocked(r, "orders")
}

func (h fakeHarness) Listed(*testing.T) bool {
	for _, e := range h.entries() {
		if e.Checks.AggregatedStatus() == api.HealthPassing {
			return true
		}
	}
	return false
}

func (h fakeHarness) Known(*testing.T) bool { return len(h.entries()) > 0 }

func (fakeHarness) Settle(*testing.T) {}

func (h fakeHarness) Lose(*testing.T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loseLocked()
	h.index++
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h fakeHarness) Registry(t *testing.T) drain.Registry { return h.plugIn(t, "10.0.0.7") }

func (h fakeHarness) Next(t *testing.T) drain.Registry { return h.plugIn(t, "10.0.0.8") }

func (h fakeHarness) plugIn(t *testing.T, ip string) *Registry {
	t.Helper()
	r, err := New(Config{Address: h.url, RegisterIn: h.in}, drain.Pod{
		Name: "orders-0", IP: ip, IPs: []string{ip, "fd00::7"}, HostIP: "10.0.0.1", AppPort: 8080,
		Service: &drain.Service{Name: "orders", Metadata: map[string]string{"version": "2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRegistrarSuiteWithAFake(t *testing.T) {
	for _, in := range []string{"agent", "catalog"} {
		t.Run(in, func(t *testing.T) {
			registrytest.RunRegistrar(t, func(t *testing.T) registrytest.RegistrarHarness {
				f, at := newFakeConsul(t)
				return fakeHarness{f, at, in}
			})
		})
	}
}

// A renewal is one request, and writes nothing into the catalog.
func TestRenewalsAreCheap(t *testing.T) {
	for in, want := range map[string]string{
		"agent":   "PUT agent/check/update/lastcall:orders-orders-0",
		"catalog": "GET health/service/orders",
	} {
		f, at := newFakeConsul(t)
		r := fakeHarness{f, at, in}.plugIn(t, "10.0.0.7")
		must(t, func(ctx context.Context) error { return r.Register(ctx, true) })
		f.mu.Lock()
		f.requests = nil
		f.mu.Unlock()
		must(t, func(ctx context.Context) error { return r.Register(ctx, true) })
		f.mu.Lock()
		if got := strings.Join(f.requests, ", "); got != want {
			t.Errorf("%s: a renewal takes %q, want %q", in, got, want)
		}
		f.mu.Unlock()
	}
}

func TestWhatConsulCannotRegister(t *testing.T) {
	pod := drain.Pod{Name: "orders-0", IP: "10.0.0.7", AppPort: 8080, Service: &drain.Service{Name: "orders", Metadata: map[string]string{"a.b": "c"}}}
	_, err := New(Config{RegisterIn: "agents"}, pod)
	for _, want := range []string{`key "a.b"`, `LASTCALL_CONSUL_REGISTER_IN="agents"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one that says %q", err, want)
		}
	}
}
