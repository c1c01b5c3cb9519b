package consul

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
	"lastcall/internal/lazyregexp"
)

const (
	// checkEvery is how often the check that represents the app is renewed, and
	// checkFor how long it stays passing without a renewal.
	checkEvery = 10 * time.Second
	checkFor   = 30 * time.Second
	// forgottenAfter is how long after its check has failed an agent removes an
	// instance whose pod has gone without a drain.
	forgottenAfter = 10 * time.Minute
	// checkName is the displayed name of the check. The texts after it are its
	// output.
	checkName    = "The app's readiness, by lastcall"
	saysReady    = "the app is ready"
	saysNotReady = "the app is not ready"
)

// Consul's limits for the metadata of a service (structs.ValidateMetadata in
// Consul).
const (
	maxPairs = 64
	maxKey   = 128
	maxValue = 512
)

var metaKey = lazyregexp.New(`^[a-zA-Z0-9_-]+$`)

// registrant is what is needed to register the app, if the sidecar does so.
type registrant struct {
	service   drain.Service
	id        string
	ips       []netip.Addr
	port      int
	inCatalog bool // otherwise at the agent
	node      string
	address   string // the node's address, in the catalog

	mu    sync.Mutex
	state checkState // state of the app's check, as far as this process knows
}

// checkState is the state in which the app's check was last seen or set.
type checkState int

const (
	checkNotSeen  checkState = iota // not seen by this process
	checkAbsent                     // the instance is not registered
	checkReplaced                   // the instance is an earlier pod's, or only half registered
	checkFailing                    // the app was reported not ready
	checkPassing
)

func newRegistrant(cfg Config, pod drain.Pod) (*registrant, error) {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	ips := pod.Addresses()
	if len(ips) == 0 || pod.AppPort == 0 {
		wrong("LASTCALL_REGISTER=true: set LASTCALL_APP_PORT and LASTCALL_POD_IP, the address that is registered in Consul")
		return nil, errors.Join(mistakes...)
	}
	if cfg.RegisterIn != "agent" && cfg.RegisterIn != "catalog" {
		wrong("LASTCALL_CONSUL_REGISTER_IN=%q: must be agent or catalog", cfg.RegisterIn)
	}
	if len(pod.Service.Metadata) > maxPairs {
		wrong("LASTCALL_SERVICE_METADATA holds %d pairs: Consul takes %d at most", len(pod.Service.Metadata), maxPairs)
	}
	for key, value := range pod.Service.Metadata {
		switch {
		case !metaKey().MatchString(key) || len(key) > maxKey || strings.HasPrefix(key, "consul-"):
			wrong("LASTCALL_SERVICE_METADATA: key %q: Consul accepts letters, digits, - and _, %d at most, and no prefix consul-", key, maxKey)
		case len(value) > maxValue:
			wrong("LASTCALL_SERVICE_METADATA: the value of %q has %d bytes: Consul takes %d at most", key, len(value), maxValue)
		}
	}
	who := pod.Name
	if who == "" {
		who = strings.NewReplacer(".", "-", ":", "-").Replace(ips[0].String())
	}
	g := &registrant{
		service: *pod.Service, id: cfg.ServiceID, ips: ips, port: pod.AppPort,
		inCatalog: cfg.RegisterIn == "catalog", node: "lastcall-" + who, address: ips[0].String(),
	}
	if g.id == "" {
		g.id = pod.Service.Name + "-" + who
	}
	return g, errors.Join(mistakes...)
}

func (g *registrant) seen() checkState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

func (g *registrant) learn(s checkState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = s
}

// checkID returns the id of the app's check. It differs from that of the
// maintenance mode, which the drain uses.
func (g *registrant) checkID() string { return "lastcall:" + g.id }

// tagged returns the pod's first address of each IP family.
func (g *registrant) tagged() map[string]api.ServiceAddress {
	all := map[string]api.ServiceAddress{}
	for _, ip := range g.ips {
		tag := "lan_ipv6"
		if ip.Is4() {
			tag = "lan_ipv4"
		}
		if _, ok := all[tag]; !ok {
			all[tag] = api.ServiceAddress{Address: ip.String(), Port: g.port}
		}
	}
	return all
}

// isAsWanted reports whether a service equals what this pod registers.
func (g *registrant) isAsWanted(s *api.AgentService) bool {
	return s.Service == g.service.Name && s.Port == g.port && s.Address == g.ips[0].String()
}

// said returns the check's status and output.
func said(ready bool) (status, output string) {
	if ready {
		return api.HealthPassing, saysReady
	}
	return api.HealthCritical, saysNotReady
}
