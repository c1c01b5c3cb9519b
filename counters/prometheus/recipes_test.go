package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"lastcall/counters/countertest"
	"lastcall/drain"
	"lastcall/internal/procnet"
	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/wait"
)

// recipe is a way to count requests with the metrics of a framework or a
// server, as docs/counters.md recommends it.
type recipe struct {
	name          string
	metric, total string
	start         func(t *testing.T, s *stage)
	// misleads are metrics that do not count the requests that the recipe's
	// backend holds, by the path that holds them.
	misleads map[string]string
	// late is true if the metric may miss a new request for a moment.
	late bool
}

// stage is the environment of a recipe: an app or a proxy in front of a backend
// that holds back its answers.
type stage struct {
	backend *servers.Backend
	port    int    // of the app
	other   int    // the port of its page, if that is another one
	page    string // the page's address
	dir     string
}

func (s *stage) app() string { return countertest.Base(s.port) }
func (s *stage) env() string { return "BACKEND=http://" + s.backend.Address }

func recipes() []recipe {
	const (
		spring32      = "http_server_requests_active_seconds_active_count"
		spring33      = "http_server_requests_active_seconds_count"
		springTotal   = `http_server_requests_seconds_count{uri!="/actuator/prometheus"}`
		busy          = "tomcat_threads_busy_threads - 1"
		phpFPM        = "phpfpm_active_processes"
		instrumentor  = "http_requests_inprogress"
		openTelemetry = "http_server_active_requests"
	)
	return []recipe{
		{name: "Spring Boot 3.2 on the app's port", metric: spring32 + " - 1", total: springTotal, start: spring("32", false)},
		{name: "Spring Boot 3.2 on its own port", metric: spring32, total: springTotal, start: spring("32", true)},
		{
			name: "Spring Boot 3.5 on the app's port", metric: spring33 + " - 1", total: springTotal, start: spring("35", false),
			misleads: map[string]string{"/async/hold": busy, "/streaming/hold": busy},
		},
		{name: "Spring Boot 3.5 on its own port", metric: spring33, total: springTotal, start: spring("35", true)},
		{name: "Go's promhttp", metric: "http_requests_in_flight", total: "http_requests_total", start: goApp},
		{
			name: "Node with prom-client", metric: "http_requests_in_flight", total: "http_requests_total", start: node,
			misleads: map[string]string{"/hold": "nodejs_active_requests_total"},
		},
		{name: "FastAPI's instrumentator", metric: instrumentor + `{handler!="/metrics"}`, total: `http_requests_total{handler!="/metrics"}`, start: uvicorn("instrumentator")},
		{name: "OpenTelemetry for FastAPI on the app's port", metric: openTelemetry + " - 1", total: `http_server_duration_milliseconds_count{http_target!=""}`, start: uvicorn("otel")},
		{name: "OpenTelemetry for FastAPI on its own port", metric: openTelemetry, total: "http_server_duration_milliseconds_count", start: otelOwn},
		{name: "gunicorn with three workers", metric: "requests_in_flight", total: "requests_total", start: gunicorn},
		{name: "PHP-FPM by pm.status_listen", metric: phpFPM, total: "phpfpm_accepted_connections", start: php(true), late: true},
		{name: "PHP-FPM by pm.status_path", metric: phpFPM + " - 1", start: php(false), late: true},
		{name: "Caddy", metric: `caddy_http_requests_in_flight{handler="reverse_proxy"}`, total: `caddy_http_requests_total{handler="reverse_proxy"}`, start: caddy},
		{name: "HAProxy's exporter", metric: `haproxy_backend_current_sessions{proxy="app"}`, total: `haproxy_backend_http_requests_total{proxy="app"}`, start: haproxy},
	}
}

// TestRecipes checks what docs/counters.md promises for each recipe: idle is
// zero, even before the first request; requests in flight count; and arrivals
// grow with requests and not with readings.
func TestRecipes(t *testing.T) {
	for _, r := range recipes() {
		t.Run(r.name, func(t *testing.T) {
			s := &stage{backend: servers.StartBackend(t), dir: t.TempDir()}
			s.port, s.other = port(t), port(t)
			r.start(t, s)
			r.play(t, s)
		})
	}
}

func (r recipe) play(t *testing.T, s *stage) {
	c := r.counter(t, s, r.metric)
	countertest.Becomes(t, c, 0, countertest.Anything) // the app is starting
	for range 5 {
		countertest.Becomes(t, c, 0, countertest.Readable) // may include the previous scrape for a moment longer
	}

	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	before := arrived(t, c)
	first, second := s.backend.Hold(t, client, s.app()), s.backend.Hold(t, client, s.app())
	least := atLeast
	if r.late {
		least = func(int64) countertest.On { return countertest.Readable }
	}
	for range 5 {
		countertest.Becomes(t, c, 2, least(2))
	}
	first.End(t)
	countertest.Becomes(t, c, 1, least(1))
	second.End(t)
	countertest.Becomes(t, c, 0, countertest.Readable)
	if r.total != "" {
		wait.Until(t, "arrivals", func() bool { return arrived(t, c) > before })
	}
	servers.IdleConnection(t, countertest.Address(s.port))
	idle := countertest.Becomes(t, c, 0, countertest.Readable)
	settled := idle.Arrived
	wait.Until(t, "arrivals that settle", func() bool { // totals may count at the end of a request
		now := arrived(t, c)
		same := now == settled
		settled = now
		return same
	})
	for range 5 {
		if again := countertest.Becomes(t, c, 0, countertest.Readable); again.Arrived != settled {
			t.Fatalf("arrivals went from %d to %d by reading alone", settled, again.Arrived)
		}
	}
	for path, metric := range r.misleads {
		held := s.backend.Hold(t, client, s.app()+path[:len(path)-len("/hold")])
		countertest.Becomes(t, c, 1, atLeast(1))
		countertest.Becomes(t, r.counter(t, s, metric), 0, countertest.Readable) // although a request is in flight
		held.End(t)
	}
}

// atLeast allows any number that includes everything in flight.
func atLeast(n int64) countertest.On {
	return func(r drain.Reading, err error) bool { return err == nil && r.InFlight >= n }
}

func arrived(t *testing.T, c drain.Counter) uint64 {
	t.Helper()
	r, err := c.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.Arrived
}

func (r recipe) counter(t *testing.T, s *stage, metric string) *Counter {
	t.Helper()
	c, err := New(Config{URL: s.page, Metric: metric, Total: r.total}, drain.Pod{AppPorts: []int{s.port}}, established(s.port))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// established counts the kernel's connections to a port. (The sidecar uses the
// tcp counter, which also excludes its own connections.)
type established int

func (port established) Count(context.Context) (drain.Reading, error) {
	open, err := procnet.Kernel().Unfinished(int(port))
	return drain.Reading{InFlight: int64(len(open))}, err
}

func port(t *testing.T) int {
	t.Helper()
	p, err := freeport.On("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// listening waits until somebody listens on each of the ports.
func listening(t *testing.T, p *servers.Process, ports ...int) {
	t.Helper()
	p.Wait(t, func() error {
		all, err := procnet.Kernel().Listeners()
		for _, port := range ports {
			if err == nil && !all[port] {
				err = fmt.Errorf("nobody listens on port %d", port)
			}
		}
		return err
	})
}

func sources(t *testing.T, folder string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "recipes", folder))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func spring(version string, ownPort bool) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		management := s.port
		if ownPort {
			management = s.other
		}
		s.page = countertest.Base(management) + "/actuator/prometheus"
		args := servers.Java("-jar", servers.Need(t, "spring-boot-"+version+".jar"))
		if version == "35" { // 3.2 cannot extract itself
			args = servers.Spring(t, "spring-boot-35")
		}
		p := servers.StartProgram(t, []string{s.env()}, "java", append(args,
			fmt.Sprint("--server.port=", s.port), "--server.address=127.0.0.1",
			fmt.Sprint("--management.server.port=", management), "--management.endpoints.web.exposure.include=prometheus",
			"--server.tomcat.mbeanregistry.enabled=true")...)
		listening(t, p, s.port, management)
	}
}

func goApp(t *testing.T, s *stage) {
	s.page = s.app() + "/metrics"
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := servers.StartProgram(t, []string{s.env(), "PROGRAM=recipe", fmt.Sprint("PORT=", s.port), "GORACE=atexit_sleep_ms=0"}, program)
	listening(t, p, s.port)
}

func node(t *testing.T, s *stage) {
	s.page = s.app() + "/metrics"
	p := servers.StartProgram(t, []string{s.env(), fmt.Sprint("PORT=", s.port), "NODE_PATH=" + servers.Need(t, "recipes-node/node_modules")},
		"node", filepath.Join(sources(t, "node"), "app.js"))
	listening(t, p, s.port)
}

// python returns the environment of the Python apps.
func python(t *testing.T, s *stage) []string {
	t.Helper()
	return []string{s.env(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + servers.Need(t, "recipes-python") + ":" + sources(t, "python")}
}

func uvicorn(app string) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		s.page = s.app() + "/metrics/"
		if app == "instrumentator" {
			s.page = s.app() + "/metrics"
		}
		p := servers.StartProgram(t, python(t, s), "python3", "-m", "uvicorn", app+":app", "--port", strconv.Itoa(s.port), "--no-access-log")
		listening(t, p, s.port)
	}
}

func otelOwn(t *testing.T, s *stage) {
	s.page = countertest.Base(s.other) + "/metrics"
	env := append(python(t, s), fmt.Sprint("METRICS_PORT=", s.other))
	p := servers.StartProgram(t, env, "python3", "-m", "uvicorn", "otel:app", "--port", strconv.Itoa(s.port), "--no-access-log")
	listening(t, p, s.port, s.other)
}

func gunicorn(t *testing.T, s *stage) {
	s.page = s.app() + "/metrics"
	env := append(python(t, s), "PROMETHEUS_MULTIPROC_DIR="+s.dir)
	p := servers.StartProgram(t, env, "python3", "-m", "gunicorn", "--workers", "3", "--worker-class", "gthread", "--threads", "4",
		"--config", filepath.Join(sources(t, "python"), "gunicorn_conf.py"), "--bind", countertest.Address(s.port), "multiprocess:app")
	listening(t, p, s.port)
	// The page fails while a worker has a file that is still empty.
	wait.Until(t, "two files of each worker", func() bool {
		files, err := filepath.Glob(filepath.Join(s.dir, "*.db"))
		return err == nil && len(files) == 6 && !slices.ContainsFunc(files, isEmpty)
	})
}

func isEmpty(file string) bool {
	info, err := os.Stat(file)
	return err != nil || info.Size() == 0
}

func php(ownSocket bool) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		s.page = countertest.Base(s.other) + "/status?openmetrics"
		workers := port(t)
		status, listen := countertest.Address(port(t)), countertest.Address(workers)
		statusListen := "pm.status_listen = " + status
		if !ownSocket {
			status, statusListen = listen, ""
		}
		conf := filepath.Join(s.dir, "php.conf")
		write(t, conf, fmt.Sprintf(`
[global]
error_log = %[1]s/php.log
daemonize = no
[www]
listen = %[2]s
pm = static
pm.max_children = 8
pm.status_path = /status
%[3]s
clear_env = no
`, s.dir, listen, statusListen))
		found, err := filepath.Glob("/usr/sbin/php-fpm*")
		if err != nil || len(found) == 0 {
			servers.Missing(t, "php-fpm")
		}
		fpm := servers.StartProgram(t, []string{s.env()}, filepath.Base(found[0]), "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", conf, "-d", "user=root")
		listening(t, fpm, workers)
		nginx := filepath.Join(s.dir, "nginx.conf")
		params := `fastcgi_param REQUEST_METHOD $request_method; fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_URI $request_uri; fastcgi_param SCRIPT_NAME $fastcgi_script_name;`
		write(t, nginx, fmt.Sprintf(`
daemon off; pid %[1]s/nginx.pid; error_log stderr; worker_processes 1;
events { worker_connections 100; }
http {
  access_log off;
  client_body_temp_path %[1]s; fastcgi_temp_path %[1]s; proxy_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen 127.0.0.1:%[2]d; location / { %[3]s fastcgi_param SCRIPT_FILENAME %[4]s/index.php; fastcgi_pass %[5]s; } }
  server { listen 127.0.0.1:%[6]d; location = /status { %[3]s fastcgi_param SCRIPT_FILENAME /status; fastcgi_pass %[7]s; } }
}
`, s.dir, s.port, params, sources(t, "php"), listen, s.other, status))
		p := servers.StartProgram(t, nil, "nginx", "-e", "stderr", "-p", s.dir, "-c", nginx)
		listening(t, p, s.port, s.other)
	}
}

func caddy(t *testing.T, s *stage) {
	s.page = countertest.Base(s.other) + "/metrics"
	config, err := json.Marshal(map[string]any{
		"admin": map[string]any{"listen": countertest.Address(s.other), "config": map[string]any{"persist": false}},
		"apps": map[string]any{"http": map[string]any{
			"metrics": map[string]any{},
			"servers": map[string]any{"web": map[string]any{
				"listen":          []string{countertest.Address(s.port)},
				"automatic_https": map[string]any{"disable": true},
				"routes": []any{map[string]any{"handle": []any{map[string]any{
					"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": s.backend.Address}},
				}}}},
			}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "caddy.json")
	write(t, file, string(config))
	p := servers.StartProgram(t, []string{"XDG_DATA_HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir}, "caddy", "run", "--config", file)
	listening(t, p, s.port, s.other)
}

func haproxy(t *testing.T, s *stage) {
	s.page = countertest.Base(s.other) + "/metrics"
	file := filepath.Join(s.dir, "haproxy.cfg")
	write(t, file, fmt.Sprintf(`
defaults
  mode http
  timeout connect 10s
  timeout client 5m
  timeout server 5m
frontend web
  bind 127.0.0.1:%d
  default_backend app
frontend metrics
  bind 127.0.0.1:%d
  http-request use-service prometheus-exporter if { path /metrics }
backend app
  server one %s
`, s.port, s.other, s.backend.Address))
	p := servers.StartProgram(t, nil, "haproxy", "-db", "-f", file)
	listening(t, p, s.port, s.other)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
