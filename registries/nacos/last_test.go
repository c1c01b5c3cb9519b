package nacos

import (
	"errors"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

// The last instance of a service is reported. The drain does not wait for its
// clients.
func TestLastInstance(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		r := h.plugIn(t)
		if isWithdrawn(t, r) || r.GaveUp() != "" {
			t.Errorf("before a drain: %q", r.GaveUp())
		}
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "last instance") {
			t.Errorf("of the last one is said: %q", r.GaveUp())
		}
		do(t, "Restore", r.Restore)
		if r.GaveUp() != "" {
			t.Errorf("after Restore: %q", r.GaveUp())
		}
		other := *h
		other.pod.IP, other.pod.Name, other.connection, other.starts = "10.9.9.9", "other", nil, 0
		other.Register(t)
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || r.GaveUp() != "" {
			t.Errorf("beside another one: %q", r.GaveUp())
		}
	})
}

// Another instance counts only while clients can use it.
func TestLastThatClientsCanUse(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, nil, beats}.start(t)
		h.Register(t)
		other := *h
		other.pod.IP, other.weight = "10.9.9.9", 0
		other.Register(t)
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || !strings.Contains(r.GaveUp(), "last instance") {
			t.Errorf("Nacos %d, beside one without a weight: %q", major, r.GaveUp())
		}
		other.weight = 1
		other.Register(t)
		if !isWithdrawn(t, r) || r.GaveUp() != "" {
			t.Errorf("Nacos %d, when the other has one: %q", major, r.GaveUp())
		}
	}
}

// Below the protect threshold, clients get unhealthy instances as healthy ones,
// but never a disabled one.
func TestProtectThreshold(t *testing.T) {
	t.Parallel()
	for _, major := range []int{1, 2, 3} {
		h := kind{"", major, func(f *fake) { f.protect = 0.4 }, beats}.start(t)
		sick := *h
		sick.pod.IP = "10.9.9.9"
		sick.Register(t)
		h.f.advance(16 * time.Second)
		h.Register(t)
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) {
			t.Errorf("Nacos %d: it is listed", major)
		}
		if !sick.Listed(t) {
			t.Fatalf("Nacos %d: the fake does not protect", major)
		}
		if r.GaveUp() != "" {
			t.Errorf("Nacos %d: %q, although clients leave the pod", major, r.GaveUp())
		}
	}
}

// Namespaces, groups and clusters distinguish instances with the same name.
func TestNames(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		theirs := *h
		theirs.Register(t)
		h.cfg.Namespace, h.cfg.Group, h.cfg.Cluster = "5a1f-dev", "payments", "HZ"
		h.Register(t)
		r := h.plugIn(t)
		if text := find(t, r); !strings.Contains(text, "payments@@"+h.cfg.Services[0]+" in cluster HZ, namespace 5a1f-dev") || !r.Located() {
			t.Errorf("Find says %q", text)
		}
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) || !theirs.Listed(t) {
			t.Errorf("listed: %v, its namesake: %v", h.Listed(t), theirs.Listed(t))
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) {
			t.Error("it is not listed after Restore")
		}
		// With the wrong cluster it is withdrawn nevertheless, and Find returns
		// what to set.
		h.cfg.Cluster = "DEFAULT"
		r = h.plugIn(t)
		if _, err := r.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "LASTCALL_NACOS_CLUSTER=HZ") {
			t.Errorf("Find in the wrong cluster: %v", err)
		}
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) || !theirs.Listed(t) {
			t.Errorf("in the wrong cluster: listed: %v, its namesake: %v", h.Listed(t), theirs.Listed(t))
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) {
			t.Error("in the wrong cluster: it is not listed after Restore")
		}
		// In the wrong group nothing is found.
		h.cfg.Group = "ordering"
		r = h.plugIn(t)
		var notFound *drain.NotFoundError
		if _, err := r.Find(t.Context()); !errors.As(err, &notFound) || !strings.Contains(err.Error(), "_GROUP") {
			t.Errorf("Find in the wrong group: %v", err)
		}
		if do(t, "Withdraw", r.Withdraw); r.Located() {
			t.Error("located in the wrong group")
		}
	})
}

// An app that registers several services is withdrawn from all.
func TestSeveralServices(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	first := h.cfg.Services[0]
	h.Register(t)
	more := h.registration()
	more.service = "providers:apps.Greeter:1.0:"
	h.connection.register(more)
	h.cfg.Services = []string{first, more.service}
	r := h.plugIn(t)
	find(t, r)
	do(t, "Withdraw", r.Withdraw)
	if !isWithdrawn(t, r) {
		t.Error("not withdrawn")
	}
	h.f.mu.Lock()
	told, _ := h.f.toldLocked(more.serviceKey(), false)
	h.f.mu.Unlock()
	if len(told) != 0 || h.Listed(t) {
		t.Errorf("still listed: %v", told)
	}
	h.cfg.Services = []string{first, "nobody"}
	if _, err := h.plugIn(t).Find(t.Context()); err == nil || !strings.Contains(err.Error(), "@@nobody") {
		t.Errorf("Find with a service that is not there: %v", err)
	}
}
