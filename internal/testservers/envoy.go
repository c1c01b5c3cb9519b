package testservers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Envoy is Envoy with two workers in front of a backend.
//
// Its listeners: `web`, with the HTTP manager ingress_http (HTTP/1.1 and HTTP/2,
// WebSockets, /healthz for readiness); `raw`, plain TCP, whose statistics are
// under my.listener; `mixed`, which is HTTP (manager mixed_http) for clients of
// 127.0.0.1 and plain TCP for those of 127.0.0.2; `ready`, with the manager
// eg-ready-http, as Envoy Gateway has it.
type Envoy struct {
	*Process
	Port, Raw, Mixed, Ready int    // of the listeners
	AdminPort               int    // of the admin interface
	Admin                   string // its address

	dir string
}

// EnvoyOptions change what Envoy is like.
type EnvoyOptions struct {
	NoListeners bool   // it has none yet
	StatsMatch  string // a prefix: all other statistics are left out
}

// StartEnvoy starts Envoy, which ends with the test.
func StartEnvoy(t testing.TB, backend *Backend, o EnvoyOptions) *Envoy {
	t.Helper()
	e := &Envoy{dir: t.TempDir()}
	freePorts(t, &e.Port, &e.Raw, &e.Mixed, &e.Ready, &e.AdminPort)
	e.Admin = fmt.Sprintf("http://127.0.0.1:%d", e.AdminPort)
	e.configure(t, backend.Address, o)
	e.Process = startProcess(t, syscall.SIGKILL, "envoy", "-c", e.configFile(),
		"--concurrency", "2", "--disable-hot-restart", "--drain-time-s", "600", "--log-level", "warning")
	client := Client(t)
	if err := e.wait(func() error { return get(context.Background(), client, e.Admin+"/ready") }); err != nil {
		t.Fatalf("Envoy does not come up: %v\n%s", err, e.log)
	}
	return e
}

func (e *Envoy) configFile() string { return filepath.Join(e.dir, "envoy.yaml") }

func (e *Envoy) configure(t testing.TB, backend string, o EnvoyOptions) {
	t.Helper()
	host, port, err := net.SplitHostPort(backend)
	if err != nil {
		t.Fatal(err)
	}
	listeners := fmt.Sprintf(`
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains: [{filters: [%s]}]
  - name: raw
    stat_prefix: my.listener
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains: [{filters: [%s]}]
  - name: mixed
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filter_chain_match: {source_prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]}
      filters: [%s]
    - filters: [%s]
  - name: ready
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains: [{filters: [%s]}]
`, e.Port, httpManager("ingress_http"), e.Raw, tcpProxy("raw"), e.Mixed, tcpProxy("mixed_raw"), httpManager("mixed_http"),
		e.Ready, httpManager("eg-ready-http"))
	if o.NoListeners {
		listeners = " []\n"
	}
	stats := "{}"
	if o.StatsMatch != "" {
		stats = fmt.Sprintf("{stats_matcher: {inclusion_list: {patterns: [{prefix: %q}]}}}", o.StatsMatch)
	}
	config := fmt.Sprintf(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
stats_config: %s
static_resources:
  listeners:%s
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]
`, e.AdminPort, stats, listeners, host, port)
	if err := os.WriteFile(e.configFile(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
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

func tcpProxy(statPrefix string) string {
	return fmt.Sprintf(`{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,
      stat_prefix: %s, cluster: app}}`, statPrefix)
}
