package main

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"lastcall/internal/fetch"
)

// ports is LASTCALL_APP_PORT: one port, or a list.
type ports []int

// Decode reads the list; envconfig calls it.
func (p *ports) Decode(value string) error {
	*p = nil
	if strings.TrimSpace(value) == "" {
		return nil
	}
	for entry := range strings.SplitSeq(value, ",") {
		port, err := strconv.Atoi(strings.TrimSpace(entry))
		if err != nil {
			return fmt.Errorf("reading a port: %w", err)
		}
		*p = append(*p, port)
	}
	return nil
}

// check finds the mistakes in the list.
func (p ports) check() (mistakes []error) {
	for i, port := range p {
		switch {
		case port < 1 || port > 65535:
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_APP_PORT=%d: must be from 1 to 65535", port))
		case slices.Contains(p[:i], port):
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_APP_PORT names %d twice", port))
		}
	}
	return mistakes
}

// checkReadyURL finds mistakes in the URL of the app's readiness. Lastcall's own is
// none: the one would wait for the other.
func (p *process) checkReadyURL() error {
	if p.AppReadyURL == "" {
		return nil
	}
	u, err := fetch.ParseURL("LASTCALL_APP_READY_URL", p.AppReadyURL, "http://127.0.0.1:8080/ready")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(p.Listen)
	if err != nil {
		return nil //nolint:nilerr // said of LASTCALL_LISTEN
	}
	own := slices.ContainsFunc(append([]string{""}, p.PodIPs...), func(ip string) bool { return fetch.Local(u.Hostname(), ip) })
	if own && port == strconv.Itoa(fetch.Port(u)) {
		return fmt.Errorf("LASTCALL_APP_READY_URL leads to port %s, which is lastcall's own (LASTCALL_LISTEN): its readiness would wait for itself; set it to the app's", port)
	}
	return nil
}

// first is the port by which registries know the app; 0 when none is set.
func (p ports) first() int {
	if len(p) == 0 {
		return 0
	}
	return p[0]
}
