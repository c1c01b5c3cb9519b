package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lastcall/counters/file"
	"lastcall/counters/tcp"
	"lastcall/drain"
	"lastcall/internal/drainfile"
	"lastcall/internal/podip"
	"lastcall/internal/settings"
)

// config is the sidecar's own part of the environment. Each plug-in has another.
type config struct {
	Listen        string        `envconfig:"LASTCALL_LISTEN" default:":8099" desc:"address of the HTTP server"`
	GracePeriod   time.Duration `envconfig:"LASTCALL_GRACE_PERIOD" default:"30s" desc:"the pod's terminationGracePeriodSeconds (the downward API does not offer it)"`
	Reserve       time.Duration `envconfig:"LASTCALL_RESERVE" default:"5s" desc:"the part of the grace period that is left to the app after its SIGTERM; the drain's budget is LASTCALL_GRACE_PERIOD - LASTCALL_RESERVE"`
	EndpointsWait time.Duration `envconfig:"LASTCALL_ENDPOINTS_WAIT" default:"3s" desc:"minimum time between readiness failing and the hook returning, for kube-proxy and ingresses"`
	Quiet         time.Duration `envconfig:"LASTCALL_QUIET" default:"1s" desc:"how long the pod must be quiet before it counts as drained"`
	Threshold     int64         `envconfig:"LASTCALL_THRESHOLD" default:"0" desc:"how much work in flight is accepted at the end"`
	Poll          time.Duration `envconfig:"LASTCALL_POLL" default:"100ms" desc:"how often counters without events are read"`
	ReadyzOnDrain string        `envconfig:"LASTCALL_READYZ_ON_DRAIN" default:"fail" desc:"fail, or pass: keep /readyz at 200 during a drain, so that kube-proxy can still fall back to the terminating pod"`
	Token         string        `envconfig:"LASTCALL_TOKEN" desc:"bearer token for /prestop, /poststart and /drain" secret:"true"`
	PodName       string        `envconfig:"LASTCALL_POD_NAME" desc:"the pod's name, by the downward API"`
	PodIPs        []string      `envconfig:"LASTCALL_POD_IP" desc:"the pod's address, or a list of all (status.podIPs), by the downward API; found from the interfaces when unset"`
	HostIP        string        `envconfig:"LASTCALL_HOST_IP" desc:"the node's address, by the downward API"`
	AppPorts      ports         `envconfig:"LASTCALL_APP_PORT" desc:"the app's port, or a list of ports; registries know the first, Nacos all"`
	AppReadyURL   string        `envconfig:"LASTCALL_APP_READY_URL" desc:"URL of the app's own readiness; while it fails, so does /readyz" secret:"url"`
	WhenListed    bool          `envconfig:"LASTCALL_READY_WHEN_LISTED" default:"false" desc:"true: /readyz is 503 until every registry has been seen to list the pod in its answers to clients"`
	ListedWithin  time.Duration `envconfig:"LASTCALL_READY_WHEN_LISTED_WITHIN" default:"3m" desc:"how long that may take from the app's start; then the pod is ready all the same, with a warning"`
	Register      bool          `envconfig:"LASTCALL_REGISTER" default:"false" desc:"true: lastcall registers the app in its registries when the app is ready, renews that, and is the only one who does; for apps that have no client of the registry"`
	ServiceName   string        `envconfig:"LASTCALL_SERVICE_NAME" desc:"the name under which LASTCALL_REGISTER registers the app"`

	ServiceMetadata []string `envconfig:"LASTCALL_SERVICE_METADATA" desc:"what it registers with the app: a list of key=value"`

	LogLevel     string   `envconfig:"LASTCALL_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat    string   `envconfig:"LASTCALL_LOG_FORMAT" default:"json" desc:"json or text, on standard error"`
	Registries   []string `envconfig:"LASTCALL_REGISTRIES" desc:"where the pod is announced: any of eureka, consul, nacos, steps, and the presets of steps: apisix, dubbo, elasticsearch, etcd, patroni, spring, tikv, vault"`
	Counters     []string `envconfig:"LASTCALL_COUNTERS" desc:"how work in flight is seen: any of file, tcp, envoy, nginx, haproxy, prometheus; what is in flight is their sum; tcp when unset and LASTCALL_APP_PORT is set"`
	Events       bool     `envconfig:"LASTCALL_EVENTS" default:"false" desc:"write Kubernetes Events for the pod; needs a Role that may create events"`
	DrainingFile string   `envconfig:"LASTCALL_DRAINING_FILE" desc:"a file on a volume shared with the app that exists while a drain is under way: the app can then answer with Connection: close"`
}

// process holds the configuration of the sidecar and what is built from it.
type process struct {
	config
	level     slog.Level
	drain     drain.Config
	observers []observer // those of the drain
	blind     []string   // counters that do not see requests arrive, if no other does
}

// configure reads the environment and returns all errors in it at once.
func configure() (process, error) {
	var p process
	named := os.Getenv("LASTCALL_REGISTRIES")
	known := plugins(func(preset string) bool { return strings.Contains(named, preset) })
	specs := append([]any{&p.config}, known.settings()...)
	mistakes := []error{
		settings.Unknown("LASTCALL_", os.Environ(), specs...),
		settings.Read(specs...),
	}
	if err := errors.Join(mistakes...); err != nil {
		// The checks below would report values that were not read.
		return p, err
	}
	p.PodIPs = slices.DeleteFunc(p.PodIPs, func(ip string) bool { return strings.TrimSpace(ip) == "" })
	trim(p.PodIPs)
	trim(p.Registries)
	trim(p.Counters)
	mistakes = append(mistakes, p.check()...)
	pod, err := p.pod()
	mistakes = append(mistakes, err)
	pod.Service, err = p.service()
	mistakes = append(mistakes, err)
	if pod.Service != nil && pod.Service.Name == "" {
		pod.Service.Name = "unnamed" // so that only what is really wrong is reported
	}

	p.drain = drain.Config{
		GracePeriod:   p.GracePeriod,
		Reserve:       p.Reserve,
		EndpointsWait: p.EndpointsWait,
		Quiet:         p.Quiet,
		Poll:          p.Poll,
		Threshold:     p.Threshold,
		StayReady:     p.ReadyzOnDrain == "pass",

		ReadyWhenListed: p.WhenListed,
		ListedWithin:    p.ListedWithin,
	}
	if host, err := netip.ParseAddr(p.HostIP); err == nil {
		p.drain.Kubelet = []netip.Addr{host.Unmap()}
	}
	if len(p.AppPorts) > 0 {
		p.drain.App = tcp.NewApp(p.AppPorts...)
	}
	if len(p.AppPorts) > 0 && len(p.Counters) == 0 {
		p.Counters = []string{"tcp"} // it needs nothing from the app
	}
	if p.DrainingFile != "" {
		p.drain.Notice, err = p.notice(known)
		mistakes = append(mistakes, err)
	}
	p.observers, err = p.observe()
	mistakes = append(mistakes, err)
	for _, o := range p.observers {
		p.drain.Observers = append(p.drain.Observers, o)
	}
	p.drain.Registries, err = choose("LASTCALL_REGISTRIES", p.Registries, known.registries, pod)
	mistakes = append(mistakes, err)
	if p.Register {
		mistakes = append(mistakes, p.register())
	}
	counters := p.Counters
	if len(p.AppPorts.check()) > 0 { // the tcp counter would report it again
		counters = slices.DeleteFunc(slices.Clone(counters), func(name string) bool { return name == "tcp" })
	}
	p.drain.Counters, err = choose("LASTCALL_COUNTERS", counters, known.counters, pod)
	p.drain.Counters, p.blind = withArrivals(p.drain.Counters, p.AppPorts)
	return p, errors.Join(append(mistakes, err)...)
}

// check returns the errors that the type of a variable does not show.
func (p *process) check() (mistakes []error) {
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if _, port, err := net.SplitHostPort(p.Listen); err != nil {
		wrong("LASTCALL_LISTEN=%q: must be HOST:PORT or :PORT, such as :8099", p.Listen)
	} else if n, err := net.LookupPort("tcp", port); err != nil { //nolint:noctx // a number or a name in /etc/services
		wrong("LASTCALL_LISTEN=%q: its port must be from 0 to 65535", p.Listen)
	} else if slices.Contains(p.AppPorts, n) && n != 0 {
		wrong("LASTCALL_APP_PORT=%d is the port that lastcall itself listens on: set it to the app's, or LASTCALL_LISTEN to another", n)
	}
	for _, d := range []struct {
		name        string
		value, from time.Duration
	}{
		{"LASTCALL_GRACE_PERIOD", p.GracePeriod, time.Second},
		{"LASTCALL_RESERVE", p.Reserve, 0},
		{"LASTCALL_ENDPOINTS_WAIT", p.EndpointsWait, 0},
		{"LASTCALL_QUIET", p.Quiet, 0},
		{"LASTCALL_POLL", p.Poll, 10 * time.Millisecond},
		{"LASTCALL_READY_WHEN_LISTED_WITHIN", p.ListedWithin, time.Second},
	} {
		if d.value < d.from {
			wrong("%s=%v: must be at least %v", d.name, d.value, d.from)
		}
	}
	if p.Reserve >= p.GracePeriod && p.GracePeriod >= time.Second {
		wrong("LASTCALL_RESERVE=%v leaves nothing of LASTCALL_GRACE_PERIOD=%v to the drain: must be less", p.Reserve, p.GracePeriod)
	}
	if strings.TrimSpace(p.Token) != p.Token {
		wrong("LASTCALL_TOKEN begins or ends with white space, which no header can carry: make the Secret without it (printf, or echo -n)")
	}
	if p.Threshold < 0 {
		wrong("LASTCALL_THRESHOLD=%d: must be 0 or more", p.Threshold)
	}
	mistakes = append(mistakes, p.AppPorts.check()...)
	if p.ReadyzOnDrain != "fail" && p.ReadyzOnDrain != "pass" {
		wrong("LASTCALL_READYZ_ON_DRAIN=%q: must be fail or pass", p.ReadyzOnDrain)
	}
	mistakes = append(mistakes, p.checkReadyURL())
	if err := p.level.UnmarshalText([]byte(p.LogLevel)); err != nil {
		wrong("LASTCALL_LOG_LEVEL=%q: must be debug, info, warn or error", p.LogLevel)
	}
	if p.LogFormat != "json" && p.LogFormat != "text" {
		wrong("LASTCALL_LOG_FORMAT=%q: must be json or text", p.LogFormat)
	}
	for _, ip := range p.PodIPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			wrong("LASTCALL_POD_IP=%q: must be an IP address, or a list of them (status.podIPs)", strings.Join(p.PodIPs, ","))
			break
		}
	}
	if _, err := netip.ParseAddr(p.HostIP); p.HostIP != "" && err != nil {
		wrong("LASTCALL_HOST_IP=%q: must be an IP address", p.HostIP)
	}
	return mistakes
}

// pod returns what plug-ins know of the pod. Its address is looked up only if a
// registry needs it.
func (p *process) pod() (drain.Pod, error) {
	pod := drain.Pod{Name: p.PodName, IPs: p.PodIPs, HostIP: p.HostIP, AppPort: p.AppPorts.first(), AppPorts: p.AppPorts}
	if len(pod.IPs) == 0 && len(p.Registries) > 0 {
		found, err := podip.Find()
		if err != nil {
			return pod, fmt.Errorf("LASTCALL_POD_IP is not set, and cannot be found: %w", err)
		}
		pod.IPs = []string{found}
	}
	if len(pod.IPs) > 0 {
		pod.IP = pod.IPs[0]
	}
	return pod, nil
}

// notice returns the file that tells the app of a drain. The file counter must
// not read it as a number of requests in flight.
func (p *process) notice(known catalog) (drain.Notice, error) {
	f, err := drainfile.New(p.DrainingFile)
	if err != nil {
		return nil, err
	}
	counted, counts := known.counters["file"].settings.(*file.Config)
	counts = counts && slices.Contains(p.Counters, "file")
	if path := filepath.Clean(p.DrainingFile); counts {
		if inFlight := filepath.Clean(counted.Path); path == inFlight || filepath.Dir(path) == inFlight {
			return nil, fmt.Errorf("LASTCALL_DRAINING_FILE=%q: must be beside LASTCALL_FILE_PATH=%q, not it nor in it", p.DrainingFile, counted.Path)
		}
	}
	return f, nil
}

// choose makes the plug-ins that a variable names, each once.
func choose[Part any](variable string, names []string, known map[string]plugin[Part], pod drain.Pod) ([]Part, error) {
	var chosen []Part
	var mistakes []error
	for i, name := range names {
		made, ok := known[name]
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s names %q: must be any of %s", variable, name, strings.Join(sorted(known), ", ")))
			continue
		}
		if slices.Contains(names[:i], name) {
			mistakes = append(mistakes, fmt.Errorf("%s names %s twice", variable, name))
			continue
		}
		part, err := made.make(name, pod)
		if err != nil {
			mistakes = append(mistakes, err)
			continue
		}
		chosen = append(chosen, part)
	}
	return chosen, errors.Join(mistakes...)
}

// trim removes white space around the entries of a list.
func trim(list []string) {
	for i, entry := range list {
		list[i] = strings.TrimSpace(entry)
	}
}
