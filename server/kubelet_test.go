package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"lastcall/drain"
)

// probed is a counter that records the addresses from which probes come.
type probed struct {
	counter
	from []netip.Addr
}

func (p *probed) IgnoreProbes(from []netip.Addr) { p.from = from }

func TestTheKubeletIsKnownByItsCalls(t *testing.T) {
	for name, test := range map[string]struct {
		path, agent string
		from        []string
		want        string
	}{
		"one probe is anybody's":                  {"/readyz", "kube-probe/1.34", []string{"10.89.0.1:5"}, ""},
		"no hook on another path":                 {"/status", "kube-lifecycle/1.34", []string{"10.89.0.1:5"}, ""},
		"no probe on another path":                {"/status", "kube-probe/1.34", []string{"10.89.0.1:5", "10.89.0.1:6", "10.89.0.1:7", "10.89.0.1:8"}, ""},
		"somebody else's call":                    {"/prestop", "curl/8", []string{"10.89.0.1:5"}, ""},
		"a mesh's proxy in the kubelet's stead":   {"/prestop", "kube-lifecycle/1.34", []string{"127.0.0.6:5"}, ""},
		"a hook":                                  {"/prestop", "kube-lifecycle/1.34", []string{"10.89.0.1:5"}, "10.89.0.1"},
		"a hook by IPv4 that looks as if by IPv6": {"/prestop", "kube-lifecycle/1.34", []string{"[::ffff:10.89.0.1]:7"}, "10.89.0.1"},
		"an address that cannot be read":          {"/prestop", "kube-lifecycle/1.34", []string{"garbage"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			told := &probed{}
			e := newEdge(t, func(c *drain.Config, _ *Options) {
				c.Counters = append(c.Counters, drain.NamedCounter{Name: "probed", Counter: told})
			})
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // do not wait for a hook
			for _, from := range test.from {
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, test.path, http.NoBody)
				r.Header.Set("User-Agent", test.agent)
				r.RemoteAddr = from
				e.handler.ServeHTTP(httptest.NewRecorder(), r)
			}
			var want []netip.Addr
			if test.want != "" {
				want = []netip.Addr{netip.MustParseAddr(test.want)}
			}
			if !slices.Equal(told.from, want) {
				t.Errorf("told of %v, want %v", told.from, want)
			}
		})
	}
}

// With a token, a refused hook does not identify its caller as the kubelet.
func TestAHookThatIsNotLetInIsNobodys(t *testing.T) {
	told := &probed{}
	e := newEdge(t, func(c *drain.Config, o *Options) {
		c.Counters = append(c.Counters, drain.NamedCounter{Name: "probed", Counter: told})
		o.Token = "secret"
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prestop", http.NoBody)
	r.Header.Set("User-Agent", "kube-lifecycle/1.34")
	r.RemoteAddr = "10.89.0.1:5"
	e.handler.ServeHTTP(httptest.NewRecorder(), r)
	if len(told.from) > 0 {
		t.Errorf("told of %v", told.from)
	}
}
