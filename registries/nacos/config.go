package nacos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"lastcall/drain"
	"lastcall/internal/fetch"
)

// maxServers limits the number of concurrent calls, and maxServices the number
// of sequential ones in one call to the plug-in.
const (
	maxServers  = 16
	maxServices = 16
)

// Config is the configuration of Nacos, from the environment.
type Config struct {
	URLs          []string      `envconfig:"LASTCALL_NACOS_URLS" desc:"all Nacos servers, each by its own name, with their context path: http://nacos-0:8848/nacos" secret:"url"`
	Services      []string      `envconfig:"LASTCALL_NACOS_SERVICE" desc:"the service's name in Nacos, without its group; or a list, where the app registers several"`
	Namespace     string        `envconfig:"LASTCALL_NACOS_NAMESPACE" default:"public" desc:"the namespace's id, which is not its name"`
	Group         string        `envconfig:"LASTCALL_NACOS_GROUP" default:"DEFAULT_GROUP" desc:"the service's group"`
	Cluster       string        `envconfig:"LASTCALL_NACOS_CLUSTER" default:"DEFAULT" desc:"the instance's cluster"`
	Username      string        `envconfig:"LASTCALL_NACOS_USERNAME" desc:"a user who may read and write the namespace"`
	Password      string        `envconfig:"LASTCALL_NACOS_PASSWORD" desc:"the user's password" secret:"true"`
	ClientRefresh time.Duration `envconfig:"LASTCALL_NACOS_CLIENT_REFRESH" default:"1s" desc:"how long a client may use its copy: the push takes a second; add its load balancer's cache, 35s for Spring Cloud LoadBalancer"`
	CAFile        string        `envconfig:"LASTCALL_NACOS_CA_FILE" desc:"PEM file of certificate authorities to trust besides the system's"`
}

// New returns the plug-in for the pod's instance. It makes no call. The error
// joins all mistakes in cfg, each with the variable's name and what would be
// correct.
func New(cfg Config, pod drain.Pod) (*Registry, error) {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }

	urls, err := parseURLs(cfg.URLs)
	mistakes = append(mistakes, err)
	services := trimmed(cfg.Services)
	if pod.Service != nil {
		mistakes = append(mistakes, checkService(cfg, pod))
		services = []string{pod.Service.Name}
	}
	switch {
	case len(services) == 0:
		wrong("LASTCALL_NACOS_SERVICE is not set: set it to the name under which the app registers, such as orders (spring.application.name)")
	case len(services) > maxServices:
		wrong("LASTCALL_NACOS_SERVICE holds %d names: must be at most %d", len(services), maxServices)
	case slices.ContainsFunc(services, func(s string) bool { return strings.Contains(s, "@@") }):
		wrong("LASTCALL_NACOS_SERVICE=%q: must be the name alone; set the part before @@ in LASTCALL_NACOS_GROUP", strings.Join(services, ","))
	}
	ips := pod.Addresses()
	if len(ips) == 0 || pod.AppPort == 0 {
		wrong("LASTCALL_APP_PORT and LASTCALL_POD_IP: Nacos knows instances by address and port; set both")
	}
	for _, v := range []struct{ name, value, example string }{
		{"LASTCALL_NACOS_NAMESPACE", cfg.Namespace, "public"},
		{"LASTCALL_NACOS_GROUP", cfg.Group, "DEFAULT_GROUP"},
		{"LASTCALL_NACOS_CLUSTER", cfg.Cluster, "DEFAULT"},
	} {
		if strings.TrimSpace(v.value) == "" {
			wrong("%s is empty: remove it, or set it to what the app registers with, such as %s", v.name, v.example)
		}
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		wrong("LASTCALL_NACOS_USERNAME and LASTCALL_NACOS_PASSWORD: one of them is empty; set both, or none")
	}
	if cfg.ClientRefresh < 0 {
		wrong("LASTCALL_NACOS_CLIENT_REFRESH=%v: must not be negative; it is how long clients use their copy, such as 1s", cfg.ClientRefresh)
	}
	client, err := newClient(cfg.CAFile)
	mistakes = append(mistakes, err)
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}

	r := &Registry{owner: pod.Name, now: time.Now}
	if r.owner == "" {
		r.owner = pod.IP
	}
	others := &atomic.Int32{}
	for _, u := range urls {
		r.servers = append(r.servers, &server{
			url: u, client: client, user: cfg.Username, password: cfg.Password,
			now: func() time.Time { return r.now() }, limit: requestLimit, silentLimit: silentLimit,
			others: others, gate: make(chan struct{}, 1),
		})
	}
	if pod.Service != nil { // only one instance is registered
		r.service, pod.AppPorts = *pod.Service, nil
		pod.IPs = []string{ips[0].String()}
	}
	for _, s := range services {
		r.targets = append(r.targets, targets(service{cfg.Namespace, cfg.Group, s}, cfg.Cluster, pod)...)
	}
	return r, nil
}

// targets returns the instances that the pod may have in one service: one for
// each combination of its addresses and its app's ports.
func targets(of service, cluster string, pod drain.Pod) []*target {
	ports := pod.AppPorts
	if len(ports) == 0 {
		ports = []int{pod.AppPort}
	}
	var all []*target
	for _, port := range ports {
		for _, ip := range pod.Addresses() {
			all = append(all, &target{service: of, cluster: cluster, ip: ip, port: port})
		}
	}
	return all
}

// parseURLs parses LASTCALL_NACOS_URLS. Its errors identify an entry by its
// position in the list and never show it.
func parseURLs(list []string) ([]string, error) {
	list = trimmed(list)
	if len(list) == 0 {
		return nil, errors.New("LASTCALL_NACOS_URLS is not set: set it to each server's URL, such as http://nacos-0.nacos:8848/nacos,http://nacos-1.nacos:8848/nacos")
	}
	if len(list) > maxServers {
		return nil, fmt.Errorf("LASTCALL_NACOS_URLS holds %d URLs: must be at most %d", len(list), maxServers)
	}
	var urls []string
	var mistakes []error
	for n, s := range list {
		wrong := func(text string) {
			mistakes = append(mistakes, fmt.Errorf("LASTCALL_NACOS_URLS, entry %d: %s", n+1, text))
		}
		u, ok := fetch.Address(s)
		switch {
		case !ok || u.RawQuery != "" || u.ForceQuery:
			wrong("must be like http://nacos-0:8848/nacos, and nothing may follow the path")
		case u.User != nil:
			wrong("must not hold a user: set LASTCALL_NACOS_USERNAME and LASTCALL_NACOS_PASSWORD")
		case slices.Contains(urls, strings.TrimRight(u.String(), "/")):
			wrong("this server is in the list twice")
		default:
			urls = append(urls, strings.TrimRight(u.String(), "/"))
		}
	}
	return urls, errors.Join(mistakes...)
}

// trimmed returns the entries of a list without surrounding white space, and
// without empty entries.
func trimmed(list []string) []string {
	var all []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, s)
		}
	}
	return all
}
