package eureka

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"lastcall/drain"
	"lastcall/internal/fetch"
)

// ServerCache is how often a Eureka server renews the cache from which it
// answers clients, unless eureka.server.response-cache-update-interval-ms is
// set. For that long it may go on listing a pod that has been withdrawn.
const ServerCache = 30 * time.Second

// The statuses of an instance that matter here (InstanceInfo.InstanceStatus).
const (
	up           = "UP"
	down         = "DOWN"
	outOfService = "OUT_OF_SERVICE"
)

// maxPeers limits the number of concurrent calls.
const maxPeers = 16

// Config is the configuration of Eureka, from the environment.
type Config struct {
	URLs          []string      `envconfig:"LASTCALL_EUREKA_URLS" desc:"service URLs of all Eureka servers, each by its own name; userinfo allowed: http://user:pw@eureka-0:8761/eureka" secret:"url"`
	App           string        `envconfig:"LASTCALL_EUREKA_APP" desc:"the application's name in Eureka; when unset, all applications are looked through"`
	InstanceID    string        `envconfig:"LASTCALL_EUREKA_INSTANCE_ID" desc:"which instance; found by LASTCALL_POD_IP and LASTCALL_APP_PORT when unset"`
	Status        string        `envconfig:"LASTCALL_EUREKA_STATUS" default:"OUT_OF_SERVICE" desc:"what the instance is set to while the pod drains: OUT_OF_SERVICE or DOWN"`
	ClientRefresh time.Duration `envconfig:"LASTCALL_EUREKA_CLIENT_REFRESH" default:"30s" desc:"how long a client may use its copy of the registry: registryFetchIntervalSeconds, plus its load balancer's cache"`
	CAFile        string        `envconfig:"LASTCALL_EUREKA_CA_FILE" desc:"PEM file of certificate authorities to trust besides the system's"`
	Insecure      bool          `envconfig:"LASTCALL_EUREKA_INSECURE" default:"false" desc:"true: the servers' certificates are not verified"`
}

// New returns the plug-in for the pod's instance. It makes no call. The error
// joins all mistakes in cfg, each with the variable's name and what would be
// correct.
func New(cfg Config, pod drain.Pod) (*Registry, error) {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }

	peers, err := parsePeers(cfg.URLs)
	mistakes = append(mistakes, err)
	ips := pod.Addresses() // an invalid address matches nothing; the pod's own settings report it
	var registrant *registrant
	if pod.Service != nil {
		registrant, err = newRegistrant(cfg, pod)
		mistakes = append(mistakes, err)
	} else if cfg.InstanceID == "" && (len(ips) == 0 || pod.AppPort == 0) {
		wrong("LASTCALL_EUREKA_INSTANCE_ID is not set: set it to the id that the app registers with, or set LASTCALL_APP_PORT and LASTCALL_POD_IP, by which the instance can be found")
	}
	if cfg.Status != outOfService && cfg.Status != down {
		wrong("LASTCALL_EUREKA_STATUS=%q: must be OUT_OF_SERVICE or DOWN", cfg.Status)
	}
	if cfg.ClientRefresh < 0 {
		wrong("LASTCALL_EUREKA_CLIENT_REFRESH=%v: must not be negative; it is how long clients use their copy of the registry, such as 30s", cfg.ClientRefresh)
	}
	roots, err := trusted(cfg.CAFile)
	mistakes = append(mistakes, err)
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}

	transport := newTransport(roots, cfg.Insecure)
	for _, p := range peers {
		p.transport = transport
	}
	own := name{strings.ToUpper(cfg.App), cfg.InstanceID} // the server converts every name to upper case
	if registrant != nil {
		own = registrant.name
	}
	return &Registry{
		registrant:      registrant,
		peers:           peers,
		app:             own.app,
		id:              own.id,
		ips:             ips,
		port:            pod.AppPort,
		status:          cfg.Status,
		refresh:         cfg.ClientRefresh,
		began:           time.Now(),
		overrideInDoubt: map[*peer]bool{},
	}, nil
}

// parsePeers parses LASTCALL_EUREKA_URLS. Its errors identify an entry by its
// position in the list and never show it: it may be part of a password that
// contains a comma.
func parsePeers(urls []string) ([]*peer, error) {
	urls = slices.DeleteFunc(slices.Clone(urls), func(s string) bool { return strings.TrimSpace(s) == "" })
	if len(urls) == 0 {
		return nil, errors.New("LASTCALL_EUREKA_URLS is not set: set it to the service URL of each Eureka server, such as http://eureka-0.eureka:8761/eureka,http://eureka-1.eureka:8761/eureka")
	}
	if len(urls) > maxPeers {
		return nil, fmt.Errorf("LASTCALL_EUREKA_URLS holds %d URLs: must be at most %d", len(urls), maxPeers)
	}
	var peers []*peer
	var mistakes []error
	for n, s := range urls {
		p, err := parsePeer(strings.TrimSpace(s))
		switch {
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_EUREKA_URLS, entry %d: %w", n+1, err))
		case slices.ContainsFunc(peers, func(o *peer) bool { return o.url == p.url }):
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_EUREKA_URLS, entry %d: this server is in the list twice", n+1))
		default:
			peers = append(peers, p)
		}
	}
	return peers, errors.Join(mistakes...)
}

func parsePeer(s string) (*peer, error) {
	const right = "must be like http://eureka-0:8761/eureka, with USER:PASSWORD@ before the host where the server wants them"
	u, ok := fetch.Address(s)
	if !ok {
		return nil, errors.New(right + "; in them / ? # @ and , must be percent-encoded")
	}
	if u.RawQuery != "" || u.ForceQuery {
		return nil, errors.New(right + "; nothing may follow the path, and / ? # @ and , in a user or password must be percent-encoded")
	}
	p := &peer{user: u.User, limit: requestLimit}
	u.User = nil
	p.url = strings.TrimRight(u.String(), "/")
	return p, nil
}

// trusted returns the system's certificate authorities and those in file. If
// file is empty, it returns nil, which means the system's alone.
func trusted(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("LASTCALL_EUREKA_CA_FILE cannot be read: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // the system has none
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("LASTCALL_EUREKA_CA_FILE=%s holds no certificate: must be a PEM file with -----BEGIN CERTIFICATE-----", file)
	}
	return roots, nil
}
