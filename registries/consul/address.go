package consul

import (
	"errors"
	"net"
	"strings"

	"lastcall/internal/fetch"
)

// address is where Consul's HTTP API is.
type address struct {
	scheme, host, prefix string
	socket               string // of a Unix socket; the host is then of no meaning
}

// String is the address as people write it.
func (a address) String() string {
	if a.socket != "" {
		return "unix://" + a.socket
	}
	return a.scheme + "://" + a.host + a.prefix
}

// parseAddress reads CONSUL_HTTP_ADDR the way Consul's client does, but for
// addresses that could only fail later. Unset, it is the node's agent where
// the node's address is known, as most clusters run it, or else the one in
// the pod.
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
		// Not shown: it may hold a password.
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
