// Package discover stands in for github.com/hashicorp/go-discover, with which
// Consul finds other agents in the APIs of clouds ("-retry-join provider=aws ...").
// The tests give addresses. The SDKs of 15 clouds, and Kubernetes' client, would be
// more than half of what is compiled for Consul.
package discover

import (
	"errors"
	"log"
)

// Provider is what Consul calls a cloud.
type Provider interface {
	Addrs(args map[string]string, l *log.Logger) ([]string, error)
	Help() string
}

// Providers has none.
var Providers map[string]Provider

// Discover finds nothing.
type Discover struct{}

// Option does nothing.
type Option func(*Discover) error

// New returns a Discover.
func New(...Option) (*Discover, error) { return &Discover{}, nil }

// WithUserAgent does nothing.
func WithUserAgent(string) Option { return nil }

// WithProviders does nothing.
func WithProviders(map[string]Provider) Option { return nil }

// Names returns none.
func (*Discover) Names() []string { return nil }

// Addrs fails: an address with a provider cannot be looked up.
func (*Discover) Addrs(string, *log.Logger) ([]string, error) {
	return nil, errors.New("this Consul was built without providers for retry-join")
}
