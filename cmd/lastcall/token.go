package main

import (
	"net"
	"net/netip"
)

// tokenExample is what sets a token, in the log.
const tokenExample = "LASTCALL_TOKEN=$(openssl rand -hex 16), and httpHeaders: [{name: Authorization, value: Bearer TOKEN}] in the hook's httpGet"

// listensOnLoopback reports whether only the pod's own containers reach the
// server, or the node's processes where the pod is in its node's network.
func (p *process) listensOnLoopback() bool {
	host, _, err := net.SplitHostPort(p.Listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
