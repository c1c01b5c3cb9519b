package consul

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// lan returns the tagged addresses that a service may have within its
// datacenter. An agent adds the latter two by itself.
func lan() []string { return []string{"lan", "lan_ipv4", "lan_ipv6"} }

// selectors are the selectors of one endpoint's filter language for the fields
// that identify an instance.
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

// filter returns the filter expression for the pod's instance. It lets through
// as little else as the language can express; isPods checks more precisely.
func (r *Registry) filter(s selectors) string {
	if r.id != "" {
		return is(s.id, r.id)
	}
	alike := []string{r.isOneOf(s.address)}
	for _, tag := range lan() {
		alike = append(alike, r.isOneOf(s.tagged+"."+tag+".Address"))
	}
	// A service without an address has the address of its node.
	bare := is(s.address, "")
	if s.node != "" {
		bare = "(" + bare + " and " + r.isOneOf(s.node) + ")"
	}
	alike = append(alike, bare)
	if r.pod.Name != "" {
		// Some clients, for example Spring's, register a host name, which is
		// the pod's.
		alike = append(alike, is(s.address, r.pod.Name),
			s.address+" matches "+quoted("^"+regexp.QuoteMeta(r.pod.Name)+"[.]"))
	}
	return fmt.Sprintf("%s == %d and (%s)", s.port, r.pod.AppPort, strings.Join(alike, " or "))
}

// isPods reports whether service is the pod's own instance. node is the address
// of its node, empty if that is not known.
func (r *Registry) isPods(service *api.AgentService, node string) bool {
	if r.id != "" {
		return service.ID == r.id
	}
	return service.Port == r.pod.AppPort && r.isAt(service, node)
}

// isAt reports whether service is registered with the pod's address.
func (r *Registry) isAt(service *api.AgentService, node string) bool {
	host := service.Address
	if host == "" {
		host = node
	}
	if r.isOwnAddress(host) {
		return true
	}
	for _, tag := range lan() {
		if at, ok := service.TaggedAddresses[tag]; ok && r.isOwnAddress(at.Address) {
			return true
		}
	}
	return r.pod.Name != "" && (host == r.pod.Name || strings.HasPrefix(host, r.pod.Name+"."))
}

// proxiesOf returns the filter expression for the sidecar proxies of an
// instance. The kind must come first: an agent that evaluates the proxy's
// settings of a service that has none drops the connection.
func proxiesOf(s selectors, id string) string {
	return is(s.kind, string(api.ServiceKindConnectProxy)) + " and " + is(s.destination, id)
}

// is returns the expression that a selector equals a value.
func is(selector, value string) string { return selector + " == " + quoted(value) }

// quoted returns s as a string of the filter language. The language reads
// strings as Go does, but ends them at the next quotation mark, even after a
// backslash.
func quoted(s string) string {
	q := strconv.Quote(s)
	return `"` + strings.ReplaceAll(q[1:len(q)-1], `\"`, `\x22`) + `"`
}

// isOneOf returns the expression that a selector equals one of the pod's
// addresses. The language compares text, so the expression lists the notations
// of each address; isOwnAddress checks more precisely.
func (r *Registry) isOneOf(selector string) string {
	var texts []string
	for _, ip := range r.pod.Addresses() {
		texts = append(texts, is(selector, ip.String()))
		if ip.Is6() {
			texts = append(texts, is(selector, ip.StringExpanded()), is(selector, long(ip)), is(selector, strings.ToUpper(ip.String())))
		} else {
			texts = append(texts, is(selector, "::ffff:"+ip.String()))
		}
	}
	switch len(texts) {
	case 0:
		return is(selector, r.pod.IP)
	case 1:
		return texts[0]
	}
	return "(" + strings.Join(texts, " or ") + ")"
}

// long returns an IPv6 address as Java writes it: all parts, without leading
// zeros.
func long(ip netip.Addr) string {
	b := ip.As16()
	parts := make([]string, 8)
	for n := range parts {
		parts[n] = strconv.FormatUint(uint64(b[2*n])<<8|uint64(b[2*n+1]), 16)
	}
	return strings.Join(parts, ":")
}

// isOwnAddress reports whether text is one of the pod's addresses.
func (r *Registry) isOwnAddress(text string) bool {
	ip, ok := parseIP(text)
	return ok && slices.Contains(r.pod.Addresses(), ip)
}

func parseIP(text string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return ip.Unmap().WithZone(""), err == nil
}

// addresses returns the pod's addresses as text for messages.
func (r *Registry) addresses() string {
	texts := make([]string, len(r.pod.Addresses()))
	for n, ip := range r.pod.Addresses() {
		texts[n] = ip.String()
	}
	return strings.Join(texts, ",")
}
