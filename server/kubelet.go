package server

import (
	"net/http"
	"net/netip"
	"strings"

	"lastcall/drain"
)

// knowKubelet tells the drainer the address that the kubelet calls from, which
// depends on the cluster's network. It probes the app from the same one.
//
// The caller's own word is all that there is: its user agent. It is believed of
// a hook that was let in (a token may guard it), and of probes that come as
// probes do; see the drainer.
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
