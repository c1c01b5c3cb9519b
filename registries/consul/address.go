package consul

import (
	"errors"
	"net"
	"strings"

	"lastcall/internal/fetch"
)

// address is the address of Consul's HTTP API.
type address struct {
	scheme, host, prefix string
	socket               string // path of a Unix socket; the host is then ignored
}

// String returns the address in the usual notation.
func (a address) String() string {
	if a.socket != "" {
		return "unix://" + a.socket
	}
	return a.scheme + "://" + a.host + a.prefix
}

// parseAddress parses CONSUL_HTTP_ADDR as Consul's client does, but refuses
// addresses that could only fail later. If it is unset, the address is that of
// the node's agent if the node's address is known, as most clusters run it;
// otherwise that of an agent in the pod.
func parseAddress(raw string, overTLS bool, hostIP string) (address, error) {
	a := address{scheme: "http"}
	port := "8500"
	if overTLS {
		a.scheme, port = "https", "8501"
	}
	if raw == "" {
		a.host = "localhost:" + port
		if hostIP != "" {
			a.host = net.JoinHostPort(hostIP, port)
		}
		return a, nil
	}
	const right = "must be like 10.0.0.5:8500, http://10.0.0.5:8500, https://consul.example:8501 or unix:///path"
	if path, ok := strings.CutPrefix(raw, "unix://"); ok && strings.HasPrefix(path, "/") {
		return address{scheme: "http", host: "localhost", socket: path}, nil
	}
	full := raw
	if !strings.Contains(raw, "://") {
		full = a.scheme + "://" + raw
	}
	if strings.Contains(raw, "@") {
		// The address is not shown: it may contain a password.
		return a, errors.New("CONSUL_HTTP_ADDR: must not hold a user or password; set CONSUL_HTTP_AUTH=USER:PASSWORD instead")
	}
	u, ok := fetch.Address(full)
	if !ok || u.RawQuery != "" {
		return a, errors.New("CONSUL_HTTP_ADDR: " + right) // not shown: a query may hold a token
	}
	if u.Scheme == "https" {
		a.scheme = "https"
	}
	a.host, a.prefix = u.Host, strings.TrimSuffix(u.Path, "/")
	return a, nil
}
