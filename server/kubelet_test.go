package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"lastcall/drain"
)

// probed is a counter that is told where probes come from.
type probed struct {
	counter
	from []netip.Addr
}

func (p *probed) IgnoreProbes(from netip.Addr) { p.from = append(p.from, from) }

func TestTheKubeletIsKnownByItsCalls(t *testing.T) {
	told := &probed{}
	e := newEdge(t, func(c *drain.Config, _ *Options) {
		c.Counters = append(c.Counters, drain.Named{Name: "probed", Counter: told})
	})
	for _, call := range []struct{ agent, from string }{
		{"curl/8", "10.1.0.1:5"},
		{"kube-probe/1.34", "127.0.0.6:5"}, // a mesh's proxy, in the kubelet's stead
		{"kube-probe/1.34", "10.89.0.1:5"},
		{"kube-probe/1.34", "10.89.0.1:6"},
		{"kube-lifecycle/1.34", "[::ffff:10.89.0.1]:7"},
		{"kube-probe/1.34", "[fd00::1]:8"},
		{"kube-probe/1.34", "garbage"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody)
		r.Header.Set("User-Agent", call.agent)
		r.RemoteAddr = call.from
		e.handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.89.0.1"), netip.MustParseAddr("fd00::1")}; !slices.Equal(told.from, want) {
		t.Errorf("told of %v, want %v", told.from, want)
	}
	for i := range 20 { // whoever claims to be one
		e.d.KubeletAt(netip.MustParseAddr(fmt.Sprintf("10.2.0.%d", i)))
	}
	if n := len(told.from); n > 4 {
		t.Errorf("told of %d addresses", n)
	}
}
