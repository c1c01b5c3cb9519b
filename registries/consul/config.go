package consul

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/drain"
)

// Config is the configuration of Consul, from the environment. The CONSUL_
// variables are Consul's own, with the same meaning as for its command line and
// its clients. Boolean ones are kept as text, because an empty value means that
// the variable is not set.
type Config struct {
	ServiceID     string        `envconfig:"LASTCALL_CONSUL_SERVICE_ID" desc:"which service instance; found by LASTCALL_POD_IP and LASTCALL_APP_PORT when unset"`
	ClientRefresh time.Duration `envconfig:"LASTCALL_CONSUL_CLIENT_REFRESH" default:"1s" desc:"how long clients may use what they were told: DNS TTL or cache time"`
	RegisterIn    string        `envconfig:"LASTCALL_CONSUL_REGISTER_IN" default:"agent" desc:"where LASTCALL_REGISTER registers the app: at the agent at CONSUL_HTTP_ADDR, or in the catalog, where there are no agents"`

	Address       string `envconfig:"CONSUL_HTTP_ADDR" desc:"Consul's HTTP address: http://10.0.0.5:8500, or unix:///path; when unset, port 8500 (8501 with CONSUL_HTTP_SSL) of LASTCALL_HOST_IP, or of localhost" secret:"url"`
	Token         string `envconfig:"CONSUL_HTTP_TOKEN" desc:"ACL token; needs service:write on the service and its sidecar proxy" secret:"true"`
	TokenFile     string `envconfig:"CONSUL_HTTP_TOKEN_FILE" desc:"file that holds the ACL token; goes before CONSUL_HTTP_TOKEN, and is read again for each call"`
	Auth          string `envconfig:"CONSUL_HTTP_AUTH" desc:"USER:PASSWORD for basic authentication" secret:"true"`
	SSL           string `envconfig:"CONSUL_HTTP_SSL" desc:"true: https when CONSUL_HTTP_ADDR has no scheme"`
	SSLVerify     string `envconfig:"CONSUL_HTTP_SSL_VERIFY" desc:"false: certificates are not verified"`
	CACert        string `envconfig:"CONSUL_CACERT" desc:"file of the trusted CA certificates"`
	CAPath        string `envconfig:"CONSUL_CAPATH" desc:"folder of trusted CA certificates"`
	ClientCert    string `envconfig:"CONSUL_CLIENT_CERT" desc:"file of the client's certificate"`
	ClientKey     string `envconfig:"CONSUL_CLIENT_KEY" desc:"file of the client's key"`
	TLSServerName string `envconfig:"CONSUL_TLS_SERVER_NAME" desc:"the name that the server's certificate must hold"`
	Namespace     string `envconfig:"CONSUL_NAMESPACE" desc:"namespace (Consul Enterprise)"`
	Partition     string `envconfig:"CONSUL_PARTITION" desc:"admin partition (Consul Enterprise)"`
}

// New returns the plug-in for the pod's instance. It makes no call. The error
// joins all mistakes in cfg, each with the variable's name and what would be
// correct.
func New(cfg Config, pod drain.Pod) (*Registry, error) {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }

	if cfg.ClientRefresh < 0 {
		wrong("LASTCALL_CONSUL_CLIENT_REFRESH=%v: must not be negative; it is the DNS TTL or cache time of clients, such as 1s", cfg.ClientRefresh)
	}
	var registrant *registrant
	if pod.Service != nil {
		var err error
		registrant, err = newRegistrant(cfg, pod)
		mistakes = append(mistakes, err)
	} else if cfg.ServiceID == "" && (pod.AppPort == 0 || pod.IP == "") {
		wrong("LASTCALL_CONSUL_SERVICE_ID is not set: set it to the id that the app registers with, or set LASTCALL_APP_PORT and LASTCALL_POD_IP, by which the instance can be found")
	}
	overTLS, err := yes("CONSUL_HTTP_SSL", cfg.SSL, false)
	mistakes = append(mistakes, err)
	verify, err := yes("CONSUL_HTTP_SSL_VERIFY", cfg.SSLVerify, true)
	mistakes = append(mistakes, err)
	server, err := parseAddress(cfg.Address, overTLS, pod.HostIP)
	mistakes = append(mistakes, err)
	token := cfg.Token
	if cfg.TokenFile != "" {
		token, err = readToken(cfg.TokenFile)
		mistakes = append(mistakes, err)
	} else if !plain(token) {
		wrong("CONSUL_HTTP_TOKEN: holds a space, a line break or another character that no token has")
	}
	client, err := httpClient(server, cfg, verify)
	mistakes = append(mistakes, err)
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}

	settings := api.Config{
		Address:    server.host,
		Scheme:     server.scheme,
		PathPrefix: server.prefix,
		Token:      token,
		Namespace:  cfg.Namespace,
		Partition:  cfg.Partition,
		HttpClient: client,
	}
	if user, password, _ := strings.Cut(cfg.Auth, ":"); user != "" {
		settings.HttpAuth = &api.HttpBasicAuth{Username: user, Password: password}
	}
	consul, err := api.NewClient(&settings)
	if err != nil {
		return nil, fmt.Errorf("setting up Consul's client from the CONSUL_ variables: %w", err)
	}
	r := &Registry{
		client:    consul,
		id:        cfg.ServiceID,
		pod:       pod,
		watchFor:  watchFor,
		limit:     requestLimit,
		changes:   make(chan struct{}, 1),
		at:        server.String(),
		anonymous: token == "",
	}
	if registrant != nil {
		r.registrant, r.id, r.names = registrant, registrant.id, []string{registrant.service.Name}
	}
	return r, nil
}

// yes parses a boolean variable. It returns unset if the variable is not set.
func yes(name, value string, unset bool) (bool, error) {
	if value == "" {
		return unset, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return unset, fmt.Errorf("%s=%q: must be true or false", name, value)
	}
	return b, nil
}
