package consul

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// lan are the tagged addresses under which a service may be known in its own
// datacenter. An agent fills in the latter two by itself.
func lan() []string { return []string{"lan", "lan_ipv4", "lan_ipv6"} }

// selectors are the names that one endpoint's filter language has for what
// an instance is found by.
type selectors struct{ id, address, port, tagged, node, kind, destination string }

func ofAgentServices() selectors {
	return selectors{id: "ID", address: "Address", port: "Port", tagged: "TaggedAddresses", kind: "Kind", destination: "Proxy.DestinationServiceID"}
}

func ofCatalogServices() selectors {
	return selectors{id: "ServiceID", address: "ServiceAddress", port: "ServicePort", tagged: "ServiceTaggedAddresses", node: "Address"}
}

func ofHealth() selectors {
	return selectors{id: "Service.ID", address: "Service.Address", port: "Service.Port", tagged: "Service.TaggedAddresses", node: "Node.Address", kind: "Service.Kind", destination: "Service.Proxy.DestinationServiceID"}
}

// filter is the filter expression that lets the pod's instance through, and as
// little else as the language can say; isPods looks closer.
func (r *Registry) filter(s selectors) string {
	if r.id != "" {
		return is(s.id, r.id)
	}
	alike := []string{is(s.address, r.pod.IP)}
	for _, tag := range lan() {
		alike = append(alike, is(s.tagged+"."+tag+".Address", r.pod.IP))
	}
	// A service without an address is at its node's.
	bare := is(s.address, "")
	if s.node != "" {
		bare = "(" + bare + " and " + is(s.node, r.pod.IP) + ")"
	}
	alike = append(alike, bare)
	if r.pod.Name != "" {
		// Some clients, Spring's among them, register a host name, which is the pod's.
		alike = append(alike, is(s.address, r.pod.Name),
			s.address+" matches "+quoted("^"+regexp.QuoteMeta(r.pod.Name)+"[.]"))
	}
	return fmt.Sprintf("%s == %d and (%s)", s.port, r.pod.AppPort, strings.Join(alike, " or "))
}

// isPods tells whether service is the pod's own instance. node is the address
// of its node, empty where that is not known.
func (r *Registry) isPods(service *api.AgentService, node string) bool {
	if r.id != "" {
		return service.ID == r.id
	}
	return service.Port == r.pod.AppPort && r.isAt(service, node)
}

// isAt tells whether service is registered under the pod's address.
func (r *Registry) isAt(service *api.AgentService, node string) bool {
	host := service.Address
	if host == "" {
		host = node
	}
	if sameAddress(host, r.pod.IP) {
		return true
	}
	for _, tag := range lan() {
		if at, ok := service.TaggedAddresses[tag]; ok && sameAddress(at.Address, r.pod.IP) {
			return true
		}
	}
	return r.pod.Name != "" && (host == r.pod.Name || strings.HasPrefix(host, r.pod.Name+"."))
}

// proxiesOf is the filter expression for the sidecar proxies of an instance.
// The kind has to come first: an agent that looks for the proxy's settings of a
// service that has none drops the connection.
func proxiesOf(s selectors, id string) string {
	return is(s.kind, string(api.ServiceKindConnectProxy)) + " and " + is(s.destination, id)
}

// is is the expression that a selector equals a value.
func is(selector, value string) string { return selector + " == " + quoted(value) }

// quoted writes s as a string of the filter language, which reads it as Go
// does, but ends it at the next quotation mark even after a backslash.
func quoted(s string) string {
	q := strconv.Quote(s)
	return `"` + strings.ReplaceAll(q[1:len(q)-1], `\"`, `\x22`) + `"`
}

// sameAddress tells whether two texts are the same IP address.
func sameAddress(a, b string) bool {
	x, err := netip.ParseAddr(a)
	if err != nil {
		return false
	}
	y, err := netip.ParseAddr(b)
	return err == nil && x.Unmap() == y.Unmap()
}
