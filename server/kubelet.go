package server

import (
	"net/http"
	"net/netip"
	"strings"

	"lastcall/drain"
)

// knowKubelet tells the drainer the address from which the kubelet calls. The
// address depends on the cluster's network. The kubelet probes the app from the
// same one.
//
// The only evidence is the user agent that the caller sends. It is trusted for
// a hook that was let in (a token may protect hooks), and for probes once
// several have come from the same address; see the drainer.
func knowKubelet(d *drain.Drainer) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			switch agent := r.UserAgent(); {
			case err != nil:
			case strings.HasPrefix(agent, "kube-lifecycle/") && r.URL.Path == "/prestop":
				d.HookedFrom(from.Addr())
			case strings.HasPrefix(agent, "kube-probe/") && (r.URL.Path == "/readyz" || r.URL.Path == "/livez"):
				d.ProbedFrom(from.Addr())
			}
			next.ServeHTTP(w, r)
		})
	}
}
