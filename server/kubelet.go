package server

import (
	"net/http"
	"net/netip"
	"strings"

	"lastcall/drain"
)

// knowKubelet tells the drainer the address that the kubelet calls from, which
// depends on the cluster's network. It probes the app from the same one.
func knowKubelet(d *drain.Drainer) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			agent := r.UserAgent()
			if strings.HasPrefix(agent, "kube-probe/") || strings.HasPrefix(agent, "kube-lifecycle/") {
				if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
					d.KubeletAt(from.Addr())
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}
