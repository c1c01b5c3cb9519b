// Package podip finds the pod's address if it is not configured.
package podip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Find returns the first global address of the interfaces, IPv4 before IPv6,
// as Kubernetes orders a pod's addresses unless the cluster says otherwise.
func Find() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("looking for the pod's address: %w", err)
	}
	return first(addresses)
}

func first(addresses []net.Addr) (string, error) {
	var best netip.Addr
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := prefix.Addr().Unmap()
		if !ip.IsGlobalUnicast() {
			continue
		}
		if !best.IsValid() || best.Is6() && ip.Is4() {
			best = ip
		}
	}
	if !best.IsValid() {
		return "", errors.New("looking for the pod's address: no interface has one")
	}
	return best.String(), nil
}
