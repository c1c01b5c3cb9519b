package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Envoy is Envoy with two workers in front of a backend.
//
// Its listeners: `web`, with the HTTP manager ingress_http (HTTP/1.1 and HTTP/2,
// WebSockets, /healthz for readiness); `raw`, plain TCP, with statistics under
// my.listener; `mixed`, which is HTTP (manager mixed_http) for clients from
// 127.0.0.1 and plain TCP for clients from 127.0.0.2; `ready`, with the manager
// eg-ready-http, as in Envoy Gateway.
type Envoy struct {
	*Process
	Port, Raw, Mixed, Ready int    // of the listeners
	AdminPort               int    // of the admin interface
	Admin                   string // its address

	dir       string
	epoch     int      // incremented by each hot restart
	listeners []string // of a Dynamic one
}

// EnvoyOptions change Envoy's configuration.
type EnvoyOptions struct {
	NoListeners  bool   // it starts without listeners
	StatsMatch   string // a prefix: all other statistics are omitted
	StatsExclude string // a regular expression: these statistics are omitted
	// Mesh makes it look like a mesh's sidecar: web is INBOUND, and raw is OUTBOUND
	// and goes through an internal listener.
	Mesh bool
	// OutboundOnly makes it look like a mesh's gateway: all listeners except the
	// one for readiness are OUTBOUND.
	OutboundOnly  bool
	Dynamic       bool   // its listeners are in a file that it watches
	AdminSocket   bool   // its admin interface is on a unix socket
	HotRestart    bool   // HotRestart can be called
	FlushOnAdmin  bool   // stats_flush_on_admin
	FlushInterval string // stats_flush_interval
	SharedPrefix  bool   // the managers of web, mixed and ready have the same stat_prefix
}

// StartEnvoy starts Envoy. It is stopped at the end of the test.
func StartEnvoy(t testing.TB, backend *Backend, o EnvoyOptions) *Envoy {
	t.Helper()
	dir, err := os.MkdirTemp("", "envoy") //nolint:usetesting // the path of a unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // under the system's folder for temporary files
	e := &Envoy{dir: dir}
	freePorts(t, &e.Port, &e.Raw, &e.Mixed, &e.Ready, &e.AdminPort)
	e.Admin = fmt.Sprintf("http://127.0.0.1:%d", e.AdminPort)
	if o.AdminSocket {
		e.Admin = "unix://" + filepath.Join(dir, "admin.sock")
	}
	e.configure(t, backend.Address, o)
	restarts := []string{"--disable-hot-restart"}
	if o.HotRestart {
		restarts = []string{"--use-dynamic-base-id", "--base-id-path", e.baseIDFile()}
	}
	e.start(t, restarts...)
	return e
}

// HotRestart starts a new process that takes over from the current one, which
// finishes its open work. It returns when the new one answers on the admin
// interface.
func (e *Envoy) HotRestart(t testing.TB) {
	t.Helper()
	base, err := os.ReadFile(e.baseIDFile())
	if err != nil {
		t.Fatal(err)
	}
	e.epoch++
	e.start(t, "--base-id", strings.TrimSpace(string(base)), "--restart-epoch", strconv.Itoa(e.epoch), "--parent-shutdown-time-s", "600")
}

// EditListeners changes the listeners of a Dynamic Envoy, and returns when Envoy
// has applied them. It calls edit for each listener; edit returns the new listener,
// or "" to remove it.
func (e *Envoy) EditListeners(t testing.TB, edit func(one string) string) {
	t.Helper()
	var edited []string
	for _, one := range e.listeners {
		if one = edit(one); one != "" {
			edited = append(edited, one)
		}
	}
	e.listeners = edited
	client := Client(t)
	updates := func() string {
		answer, err := page(client, e.Admin+"/stats?filter=^listener_manager.lds.update_success$")
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	before := updates()
	e.writeListeners(t)
	if err := e.wait(func() error {
		if updates() == before {
			return errors.New("the listeners have not been updated")
		}
		return nil
	}); err != nil {
		t.Fatalf("Envoy: %v\n%s", err, e.log)
	}
}

// writeListeners replaces the file that Envoy watches.
func (e *Envoy) writeListeners(t testing.TB) {
	t.Helper()
	next := e.listenersFile() + ".next"
	if err := os.WriteFile(next, []byte("resources: ["+strings.Join(e.listeners, ",\n")+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, e.listenersFile()); err != nil {
		t.Fatal(err)
	}
}

func (e *Envoy) listenersFile() string { return filepath.Join(e.dir, "lds.yaml") }

func (e *Envoy) baseIDFile() string { return filepath.Join(e.dir, "base-id") }

func (e *Envoy) start(t testing.TB, restarts ...string) {
	t.Helper()
	e.Process = startProcess(t, syscall.SIGKILL, "envoy", append(restarts, "-c", e.configFile(),
		"--concurrency", "2", "--drain-time-s", "600", "--log-level", "warning")...)
	// After a hot restart, a connection that is kept open may lead to the old
	// process.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	admin := e.Admin
	if socket, found := strings.CutPrefix(admin, "unix://"); found {
		client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
		admin = "http://admin"
	}
	epoch := fmt.Sprintf(`"restart_epoch": %d,`, e.epoch)
	if err := e.wait(func() error {
		if err := get(context.Background(), client, admin+"/ready"); err != nil {
			return err
		}
		info, err := page(client, admin+"/server_info")
		if err == nil && !strings.Contains(info, epoch) {
			err = errors.New("the old process answers")
		}
		return err
	}); err != nil {
		t.Fatalf("Envoy does not start: %v\n%s", err, e.log)
	}
}

// page returns a server's answer.
func page(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func (e *Envoy) configFile() string { return filepath.Join(e.dir, "envoy.yaml") }

func (e *Envoy) configure(t testing.TB, backend string, o EnvoyOptions) {
	t.Helper()
	host, port, err := net.SplitHostPort(backend)
	if err != nil {
		t.Fatal(err)
	}
	direction := map[string]string{}
	switch {
	case o.Mesh:
		direction = map[string]string{"web": "INBOUND", "raw": "OUTBOUND"}
	case o.OutboundOnly:
		direction = map[string]string{"web": "OUTBOUND", "raw": "OUTBOUND", "mixed": "OUTBOUND"}
	}
	directed := func(listener string) string {
		if direction[listener] == "" {
			return "UNSPECIFIED"
		}
		return direction[listener]
	}
	raw := tcpProxy("raw", "app")
	if o.Mesh {
		raw = tcpProxy("raw", "inner")
	}
	web, mixed, ready := "ingress_http", "mixed_http", "eg-ready-http"
	if o.SharedPrefix {
		mixed, ready = web, web
	}
	const listener = "type.googleapis.com/envoy.config.listener.v3.Listener"
	list := []string{
		fmt.Sprintf(`{"@type": %s, name: web, traffic_direction: %s, address: %s, filter_chains: [{filters: [%s]}]}`,
			listener, directed("web"), local(e.Port), httpManager(web)),
		fmt.Sprintf(`{"@type": %s, name: raw, traffic_direction: %s, stat_prefix: my.listener, address: %s, filter_chains: [{filters: [%s]}]}`,
			listener, directed("raw"), local(e.Raw), raw),
		fmt.Sprintf(`{"@type": %s, name: mixed, traffic_direction: %s, address: %s, filter_chains: [
			{filter_chain_match: {source_prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]}, filters: [%s]}, {filters: [%s]}]}`,
			listener, directed("mixed"), local(e.Mixed), tcpProxy("mixed_raw", "app"), httpManager(mixed)),
		fmt.Sprintf(`{"@type": %s, name: ready, address: %s, filter_chains: [{filters: [%s]}]}`, listener, local(e.Ready), httpManager(ready)),
	}
	if o.Mesh {
		list = append(list, fmt.Sprintf(`{"@type": %s, name: inner, internal_listener: {}, filter_chains: [{filters: [%s]}]}`, listener, tcpProxy("inner", "app")))
	}
	if o.NoListeners {
		list = nil
	}
	static, dynamic := "["+strings.ReplaceAll(strings.Join(list, ",\n"), `"@type": `+listener+", ", "")+"]", "{}"
	if o.Dynamic {
		e.listeners = list
		e.writeListeners(t)
		static, dynamic = "[]", fmt.Sprintf("{lds_config: {path_config_source: {path: %s}}}", e.listenersFile())
	}
	stats := "{}"
	switch {
	case o.StatsMatch != "":
		stats = fmt.Sprintf("{stats_matcher: {inclusion_list: {patterns: [{prefix: %q}]}}}", o.StatsMatch)
	case o.StatsExclude != "":
		stats = fmt.Sprintf("{stats_matcher: {exclusion_list: {patterns: [{safe_regex: {regex: %q}}]}}}", o.StatsExclude)
	}
	admin := local(e.AdminPort)
	if socket, found := strings.CutPrefix(e.Admin, "unix://"); found {
		admin = fmt.Sprintf("{pipe: {path: %s}}", socket)
	}
	flush := ""
	switch {
	case o.FlushOnAdmin:
		flush = "stats_flush_on_admin: true"
	case o.FlushInterval != "":
		flush = "stats_flush_interval: " + o.FlushInterval
	}
	config := fmt.Sprintf(`
admin: {address: %s}
node: {id: test, cluster: test}
stats_config: %s
%s
dynamic_resources: %s
bootstrap_extensions:
- name: envoy.bootstrap.internal_listener
  typed_config: {"@type": type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener}
static_resources:
  listeners: %s
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]
  - name: inner
    load_assignment:
      cluster_name: inner
      endpoints: [{lb_endpoints: [{endpoint: {address: {envoy_internal_address: {server_listener_name: inner}}}}]}]
`, admin, stats, flush, dynamic, static, host, port)
	if err := os.WriteFile(e.configFile(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// local returns an address of this machine for Envoy's configuration.
func local(port int) string {
	return fmt.Sprintf("{socket_address: {address: 127.0.0.1, port_value: %d}}", port)
}

func httpManager(statPrefix string) string {
	const types = "type.googleapis.com/envoy.extensions.filters"
	return fmt.Sprintf(`{name: http, typed_config: {"@type": %[1]s.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: %[2]s,
      upgrade_configs: [{upgrade_type: websocket}],
      route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app, timeout: 0s}}]}]},
      http_filters: [
        {name: health, typed_config: {"@type": %[1]s.http.health_check.v3.HealthCheck, pass_through_mode: false,
          headers: [{name: ":path", string_match: {exact: /healthz}}]}},
        {name: router, typed_config: {"@type": %[1]s.http.router.v3.Router}}]}}`, types, statPrefix)
}

func tcpProxy(statPrefix, cluster string) string {
	return fmt.Sprintf(`{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,
      stat_prefix: %s, cluster: %s}}`, statPrefix, cluster)
}
