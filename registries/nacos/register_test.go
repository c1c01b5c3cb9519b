package nacos

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
	"lastcall/registries/registrytest"
)

// registered is a pod whose app the sidecar registers.
type registered struct{ *harness }

func register(h *harness) registered {
	h.pod.Service = &drain.Service{Name: h.cfg.Services[0], Metadata: map[string]string{"version": "2"}}
	h.cfg.Services = []string{h.pod.Service.Name}
	return registered{h}
}

func (r registered) Registry(t *testing.T) drain.Registry {
	t.Helper()
	return r.plugIn(t)
}

// Next returns the registry of a later pod that has the address of one that is
// gone.
func (r registered) Next(t *testing.T) drain.Registry {
	t.Helper()
	if r.f != nil {
		r.f.advance(31 * time.Second) // nobody renews the earlier pod's instance any more
	} else {
		r.Lose(t)
	}
	pod := r.pod
	pod.Name += "-next"
	next := *r.harness
	next.pod = pod
	return next.plugIn(t)
}

func (r registered) Lose(t *testing.T) {
	t.Helper()
	if r.f == nil {
		r.send(t, http.MethodDelete, "/v1/ns/instance", r.form())
		return
	}
	i := r.registration()
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.dropLocked(r.f.instances[i.key()])
}

// generations returns the kinds of server at which an app is registered by
// HTTP.
func generations() (all []kind) {
	for _, k := range kinds() {
		same := func(o kind) bool { return strings.Split(o.name, ",")[0] == strings.Split(k.name, ",")[0] }
		if k.client = beats; !slices.ContainsFunc(all, same) {
			k.name, _, _ = strings.Cut(k.name, ",")
			all = append(all, k)
		}
	}
	return all
}

func TestRegistrarSuite(t *testing.T) {
	t.Parallel()
	for _, k := range generations() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			registrytest.RunRegistrar(t, func(t *testing.T) registrytest.RegistrarHarness { return register(k.start(t)) })
		})
	}
}

func TestRegistrarSuiteWithAServerThatIsDown(t *testing.T) {
	t.Parallel()
	registrytest.RunRegistrar(t, func(t *testing.T) registrytest.RegistrarHarness {
		h := register(kind{"", 3, nil, beats}.start(t))
		h.cfg.URLs = []string{dead, h.url}
		return h
	})
}

// The registered instance has what was configured. It stays while it is
// renewed, and disappears without renewals.
func TestWhatIsRegistered(t *testing.T) {
	t.Parallel()
	for _, k := range generations() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := register(k.start(t))
			r := h.plugIn(t)
			do(t, "Register", func(ctx context.Context) error { return r.Register(ctx, true) })
			if i := h.shown(t); i.metadata["version"] != "2" || i.weight != 1 || !i.ephemeral {
				t.Errorf("registered as %+v", i)
			}
			for range 20 {
				h.f.advance(beatEvery)
				do(t, "Register", func(ctx context.Context) error { return r.Register(ctx, true) })
			}
			if i := h.shown(t); !i.enabled || !i.healthy {
				t.Errorf("after 100 s: %+v", i)
			}
			do(t, "Withdraw", r.Withdraw)
			h.f.advance(31 * time.Second)
			if h.Known(t) {
				t.Error("nobody renews it, and it is still there")
			}
		})
	}
}

func TestNamesOfWhatIsRegistered(t *testing.T) {
	h := register(newHarness(nil, dead, beats))
	h.cfg.Services = []string{"another"}
	if _, err := New(h.cfg, h.pod); err == nil || !strings.Contains(err.Error(), "LASTCALL_SERVICE_NAME") {
		t.Errorf("two names for one service: %v", err)
	}
	h.cfg.Services = nil
	h.pod.AppPorts, h.pod.IPs = []int{8080, 8081}, []string{"10.0.0.7", "fd00::7"}
	r, err := New(h.cfg, h.pod)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(len(r.targets), r.targets[0].ip, r.targets[0].port); got != "1 10.0.0.7 8080" {
		t.Errorf("registered at %s", got)
	}
}
