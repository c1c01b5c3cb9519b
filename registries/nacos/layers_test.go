package nacos

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// forKinds runs a test with each kind of server and client.
func forKinds(t *testing.T, run func(*testing.T, *harness)) {
	t.Helper()
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			run(t, k.start(t))
		})
	}
}

// A withdrawal and its end leave the weight and all metadata unchanged, and do
// not hide what the app registers later.
func TestWeightAndMetadataStay(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.weight = 5.5
		h.Register(t)
		if h.f.major > 1 {
			i := h.registration()
			h.f.mu.Lock()
			h.f.overlayLocked(i.key()).extend = map[string]string{"zone": "a"}
			h.f.operator[i.key()].weight = 5.5
			h.f.mu.Unlock()
		}
		check := func(when, version string) {
			t.Helper()
			got := h.shown(t)
			if got.weight != 5.5 || got.metadata["version"] != version || h.f.major > 1 && got.metadata["zone"] != "a" {
				t.Errorf("%s: weight %v and metadata %v", when, got.weight, got.metadata)
			}
		}
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		check("withdrawn", "1")
		if h.shown(t).enabled {
			t.Error("it is enabled after Withdraw")
		}
		h.Register(t)
		check("registered again", "2")
		do(t, "Withdraw again", r.Withdraw)
		check("withdrawn again", "2")
		do(t, "Restore", r.Restore)
		check("restored", "2")
		got := h.shown(t)
		if _, hasMark := got.metadata[markKey]; hasMark || !got.enabled {
			t.Errorf("after Restore: enabled %v, metadata %v", got.enabled, got.metadata)
		}
	})
}

// The first change of an instance that no operator has changed keeps its
// weight. A change without a weight would set it to 1.
func TestWeightOfTheApp(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.weight = 0.25
		h.Register(t)
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		do(t, "Restore", r.Restore)
		if got := h.shown(t); got.weight != 0.25 || !got.enabled {
			t.Errorf("weight %v, enabled %v", got.weight, got.enabled)
		}
	})
}

// An instance that somebody else has disabled stays disabled: through a drain
// that is taken back, and at the start of the sidecar.
func TestOperatorsWillStays(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		h.operate(false)
		r := h.plugIn(t)
		if text := find(t, r); !strings.Contains(text, "somebody has disabled") {
			t.Errorf("Find says %q", text)
		}
		if h.f.noBatch {
			return // the server cannot mark instances, so Restore enables it
		}
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) {
			t.Error("not withdrawn")
		}
		if r.GaveUp() != "" {
			t.Errorf("GaveUp for an instance that this process has not disabled: %q", r.GaveUp())
		}
		do(t, "Restore", r.Restore)
		find(t, r)
		if h.shown(t).enabled {
			t.Error("it is enabled")
		}
		if writes := h.f.wrote(); len(writes) != 0 {
			t.Errorf("it was changed: %v", writes)
		}
	})
}

// An app that registers again during a drain is withdrawn again if servers have
// one layer, and stays withdrawn if they have two.
func TestRegistrationDuringADrain(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		h.Register(t)
		if gone := isWithdrawn(t, r); gone != (h.f.major > 1) {
			t.Fatalf("withdrawn %v after a new registration", gone)
		}
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) {
			t.Error("the new registration was not withdrawn")
		}
	})
}

// A leftover of Withdraw is cleared if the pod or its app's connection is
// another one, and only then.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	for _, major := range []int{2, 3} {
		for _, test := range []struct {
			name    string
			then    func(*testing.T, *harness)
			enabled bool
		}{
			{"the sidecar starts again", func(*testing.T, *harness) {}, false},
			{"another pod", func(t *testing.T, h *harness) { h.Register(t) }, true},
			{"the same pod, a new connection", func(_ *testing.T, h *harness) {
				h.connection.close()
				h.connection = h.f.connect()
				h.connection.register(h.registration())
			}, true},
			{"somebody has enabled and disabled it", func(t *testing.T, h *harness) {
				do(t, "Restore", h.plugIn(t).Restore)
				h.operate(false)
				h.Register(t)
			}, false},
		} {
			h := kind{"", major, nil, grpc}.start(t)
			h.Register(t)
			do(t, "Withdraw", h.plugIn(t).Withdraw)
			test.then(t, h)
			text := find(t, h.plugIn(t))
			if h.Listed(t) != test.enabled {
				t.Errorf("Nacos %d, %s: enabled %v, want %v; Find says %q", major, test.name, !test.enabled, test.enabled, text)
			}
			if _, hasMark := h.shown(t).metadata[markKey]; hasMark && test.enabled {
				t.Errorf("Nacos %d, %s: the mark is still there", major, test.name)
			}
		}
	}
}

// Find does not undo a withdrawal during the drain.
func TestFindDuringADrain(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	r := h.plugIn(t)
	do(t, "Withdraw", r.Withdraw)
	h.Register(t) // another connection
	find(t, r)
	if h.Listed(t) {
		t.Error("Find has enabled what is being withdrawn")
	}
}

// A drain is taken back while the app is restarting. An instance that the app
// registers within the minute for which the servers remember the withdrawal is
// enabled.
func TestRestoreBeforeTheAppIsBack(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		if h.client == persistent {
			return // it never disappears
		}
		h.Register(t)
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		if h.client == grpc {
			h.connection.close()
		} else {
			h.f.advance(31 * time.Second)
		}
		if h.Known(t) {
			t.Fatal("the instance is still there")
		}
		do(t, "Restore", r.Restore)
		if h.client == grpc {
			h.connection = h.f.connect()
			h.connection.register(h.registration())
		} else {
			h.send(t, http.MethodPost, h.clientPath(), h.form())
		}
		if h.f.major > 1 && h.Listed(t) {
			t.Fatal("the fake forgets too early what was withdrawn")
		}
		find(t, r)
		if !h.Listed(t) {
			t.Error("it is not in service")
		}
	})
}

// Deregister deletes persistent instances and those that heartbeats keep alive,
// but no instance of an open connection.
func TestDeregister(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		r := h.plugIn(t)
		do(t, "Withdraw", r.Withdraw)
		before := len(h.f.wrote())
		do(t, "Deregister", r.Deregister)
		switch known := h.Known(t); {
		case known != (h.client == grpc):
			t.Errorf("known: %v", known)
		case h.client == grpc && h.Listed(t):
			t.Error("it is listed again")
		case h.client == grpc && !h.f.noV2 && (!h.f.auth || h.f.major == 3) && len(h.f.wrote()) != before:
			t.Errorf("it was changed: %v", h.f.wrote()[before:])
		}
	})
}

// The second layer outlives its instance by a minute, and no longer.
func TestMinute(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	do(t, "Withdraw", h.plugIn(t).Withdraw)
	h.connection.close()
	h.f.advance(59 * time.Second)
	h.Register(t)
	if h.Listed(t) {
		t.Fatal("after 59 s the withdrawal is gone")
	}
	h.connection.close()
	h.f.advance(61 * time.Second)
	h.Register(t)
	if !h.Listed(t) {
		t.Fatal("after 61 s the withdrawal is still there")
	}
}
