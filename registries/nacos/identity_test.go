package nacos

import (
	"strings"
	"testing"
)

// An app that registers two ports is withdrawn at both if both are configured.
// If only one is, the other is named.
func TestTwoPorts(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		h.Register(t)
		second := *h
		second.pod.AppPort = 9090
		second.starts = 0
		if second.client == grpc {
			i := second.registration()
			h.connection.register(i)
		} else {
			second.Register(t)
		}
		if text := find(t, h.plugIn(t)); !strings.Contains(text, ":9090 of ") || !strings.Contains(text, "LASTCALL_APP_PORT") {
			t.Errorf("Find says %q", text)
		}
		h.pod.AppPorts = []int{8080, 9090}
		r := h.plugIn(t)
		find(t, r)
		do(t, "Withdraw", r.Withdraw)
		if !isWithdrawn(t, r) || h.Listed(t) || second.Listed(t) {
			t.Errorf("listed: %v and %v", h.Listed(t), second.Listed(t))
		}
		do(t, "Restore", r.Restore)
		if !h.Listed(t) || !second.Listed(t) {
			t.Errorf("after Restore, listed: %v and %v", h.Listed(t), second.Listed(t))
		}
	})
}

// A pod with several addresses is registered with one of them, in any notation:
// servers compare addresses as text. A sidecar that is restarted finds the
// instance that the previous process disabled.
func TestAddresses(t *testing.T) {
	forKinds(t, func(t *testing.T, h *harness) {
		for _, as := range []string{"10.7.7.7", "fd00::7", "fd00:0:0:0:0:0:0:7", "[fd00::7]", "[fd00:0:0:0:0:0:0:7]"} {
			own := *h
			own.pod.IP, own.starts, own.connection = as, 0, nil
			own.Register(t)
			configured := own
			configured.pod.IP, configured.pod.IPs = "10.7.7.7", []string{"10.7.7.7", "fd00:0::7"}
			r := configured.plugIn(t)
			find(t, r)
			do(t, "Withdraw", r.Withdraw)
			if !isWithdrawn(t, r) || own.Listed(t) {
				t.Errorf("%s: it is listed", as)
			}
			do(t, "Restore in a new process", configured.plugIn(t).Restore)
			if !own.Listed(t) {
				t.Errorf("%s: it is not listed after Restore", as)
			}
			do(t, "Withdraw", r.Withdraw)
			do(t, "Deregister", r.Deregister)
			if own.connection != nil {
				own.connection.close()
			}
			if own.Known(t) {
				t.Errorf("%s: it is left behind", as)
			}
		}
	})
}
