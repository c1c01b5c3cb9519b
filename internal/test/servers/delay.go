package servers

import (
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

//go:embed delay
var delaySources embed.FS

// DelayOptions describe a server with delays. It listens on all addresses.
type DelayOptions struct {
	Ports    []int // without TLS
	TLSPorts []int
	HTTP2    bool // also HTTP/2: node, tomcat, nginx and haproxy
	// The PEM files of the certificate and of its key.
	Certificate, Key string
	// Backend is the upstream of nginx and HAProxy: the address of a server with
	// delays.
	Backend string
}

// delayServers are the functions that start the servers with delays.
var delayServers = map[string]func(t testing.TB, o DelayOptions, dir string) []*Process{
	"node": func(t testing.TB, o DelayOptions, dir string) []*Process {
		return []*Process{StartProgram(t, nil, "node", append([]string{dir + "/node.js"}, o.argsAndHTTP2()...)...)}
	},
	"tomcat": func(t testing.TB, o DelayOptions, dir string) []*Process {
		return javaDelays(t, o, dir+"/DelayTomcat.java")
	},
	"netty": func(t testing.TB, o DelayOptions, dir string) []*Process {
		return javaDelays(t, o, dir+"/DelayNetty.java")
	},
	"uvicorn": func(t testing.TB, o DelayOptions, dir string) []*Process {
		return []*Process{
			python(t, dir+"/asgi.py", list(o.Ports)),
			python(t, dir+"/asgi.py", list(o.TLSPorts), o.Certificate, o.Key),
		}
	},
	"gunicorn": gunicornDelays,
	"grpcio": func(t testing.TB, o DelayOptions, dir string) []*Process {
		return []*Process{python(t, append([]string{dir + "/rpc.py"}, o.args()...)...)}
	},
	"grpc-go": func(t testing.TB, o DelayOptions, _ string) []*Process {
		return []*Process{StartProgram(t, nil, "grpc-delay", append([]string{"serve"}, o.args()...)...)}
	},
	"nginx":   nginxDelays,
	"haproxy": haproxyDelays,
	"php":     phpDelays,
}

// StartDelays starts a server whose answers take as long as the request says: it
// answers `/delay/MS` with "done" after MS milliseconds. So it does for the message
// MS on the WebSocket `/ws` of tomcat, uvicorn, nginx and haproxy. The program
// grpc-delay is the client for grpc-go and grpcio. The server is stopped at the end
// of the test.
func StartDelays(t testing.TB, kind string, o DelayOptions) {
	t.Helper()
	start, known := delayServers[kind]
	if !known {
		t.Fatalf("%s is none of the servers with delays", kind)
	}
	dir := filepath.Join(tempDir(t), "delay")
	if err := os.CopyFS(filepath.Dir(dir), delaySources); err != nil {
		t.Fatal(err)
	}
	processes := start(t, o, dir)
	for _, port := range append(append([]int(nil), o.Ports...), o.TLSPorts...) {
		processes[0].Wait(t, func() error { return listens(port) })
	}
}

func (o DelayOptions) args() []string {
	return []string{list(o.Ports), list(o.TLSPorts), o.Certificate, o.Key}
}

func (o DelayOptions) argsAndHTTP2() []string {
	if o.HTTP2 {
		return append(o.args(), "http2")
	}
	return o.args()
}

func list(ports []int) string {
	var texts []string
	for _, port := range ports {
		texts = append(texts, strconv.Itoa(port))
	}
	return strings.Join(texts, ",")
}

// tempDir creates a folder with a short name, as paths of unix sockets need, that
// workers of other users may enter.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "delay") //nolint:usetesting // the path of a unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // under the system's folder for temporary files
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func javaDelays(t testing.TB, o DelayOptions, source string) []*Process {
	args := Java("-cp", Need(t, "tcp-servers.jar"), source)
	return []*Process{StartProgram(t, nil, "java", append(args, o.argsAndHTTP2()...)...)}
}

// python starts a program with the Python servers on its path.
func python(t testing.TB, args ...string) *Process {
	return StartProgram(t, []string{"PYTHONPATH=" + Need(t, "python.d")}, "python3", args...)
}

// gunicornDelays starts gunicorn with threads, which it needs to keep connections
// open, for its default of 2 s.
func gunicornDelays(t testing.TB, o DelayOptions, dir string) []*Process {
	serve := func(ports []int, more ...string) *Process {
		args := []string{"-m", "gunicorn", "--chdir", dir, "--worker-class", "gthread", "--threads", "100", "--worker-tmp-dir", dir, "--timeout", "300"}
		for _, port := range ports {
			args = append(args, "--bind", fmt.Sprintf("0.0.0.0:%d", port))
		}
		return python(t, append(append(args, more...), "wsgi:app")...)
	}
	return []*Process{serve(o.Ports), serve(o.TLSPorts, "--certfile", o.Certificate, "--keyfile", o.Key)}
}

func nginxDelays(t testing.TB, o DelayOptions, dir string) []*Process {
	return []*Process{nginxWith(t, o, dir, fmt.Sprintf(`
        location / {
            proxy_pass http://%s;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $upgrade_or_none;
            proxy_read_timeout 300s;
        }`, o.Backend))}
}

// phpDelays starts PHP-FPM, with as many workers as there are requests at most, and
// nginx in front of it.
func phpDelays(t testing.TB, o DelayOptions, dir string) []*Process {
	program := "php-fpm"
	if _, err := exec.LookPath(program); err != nil {
		found, _ := filepath.Glob("/usr/sbin/php-fpm*") // the pattern is well formed
		if len(found) == 0 {
			Missing(t, program)
		}
		program = filepath.Base(found[0])
	}
	config := fmt.Sprintf(`
[global]
error_log = %[1]s/php.log
daemonize = no
[www]
listen = %[1]s/php
pm = static
pm.max_children = 48
`, dir)
	write(t, dir+"/php.conf", config)
	php := startProcess(t, syscall.SIGTERM, program, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", dir+"/php.conf", "-d", "user=root")
	php.Wait(t, func() error {
		conn, err := net.Dial("unix", dir+"/php")
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return []*Process{nginxWith(t, o, dir, fmt.Sprintf(`
        location / {
            fastcgi_pass unix:%[1]s/php;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param SCRIPT_FILENAME %[1]s/index.php;
            fastcgi_read_timeout 300s;
        }`, dir)), php}
}

func nginxWith(t testing.TB, o DelayOptions, dir, location string) *Process {
	http2 := ""
	if o.HTTP2 {
		http2 = " http2"
	}
	var listen strings.Builder
	for _, port := range o.Ports {
		fmt.Fprintf(&listen, "        listen 0.0.0.0:%d%s;\n", port, http2)
	}
	for _, port := range o.TLSPorts {
		fmt.Fprintf(&listen, "        listen 0.0.0.0:%d ssl%s;\n", port, http2)
	}
	return startNginxWith(t, nil, dir, fmt.Sprintf(`
    map $http_upgrade $upgrade_or_none { default upgrade; "" ""; }
    server {
%s        ssl_certificate %s;
        ssl_certificate_key %s;
        ssl_protocols TLSv1.2 TLSv1.3;%s
    }`, listen.String(), o.Certificate, o.Key, location))
}

// startNginxWith starts nginx with the given servers. The programs and arguments in
// before, if any, come before nginx on the command line.
func startNginxWith(t testing.TB, before []string, dir, servers string) *Process {
	t.Helper()
	write(t, dir+"/nginx.conf", fmt.Sprintf(`
daemon off;
user root; # where the tests run as root, so that the workers can use the test's folder
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;%s
}
`, servers))
	command := append(append([]string(nil), before...), Need(t, "nginx"), "-e", "stderr", "-p", dir, "-c", dir+"/nginx.conf")
	return startProcess(t, syscall.SIGTERM, command[0], command[1:]...)
}

func haproxyDelays(t testing.TB, o DelayOptions, dir string) []*Process {
	pem := o.pem(t, dir)
	alpn := ""
	if o.HTTP2 {
		alpn = " alpn h2,http/1.1"
	}
	var bind strings.Builder
	for _, port := range o.Ports {
		fmt.Fprintf(&bind, "    bind 0.0.0.0:%d\n", port)
	}
	for _, port := range o.TLSPorts {
		fmt.Fprintf(&bind, "    bind 0.0.0.0:%d ssl crt %s%s\n", port, pem, alpn)
	}
	return []*Process{startHAProxyWith(t, nil, dir, fmt.Sprintf(`
frontend web
%s    default_backend app
backend app
    server app %s
`, bind.String(), o.Backend))}
}

// pem returns a file with the certificate and its key, as HAProxy needs it.
func (o DelayOptions) pem(t testing.TB, dir string) string {
	var both []byte
	for _, file := range []string{o.Certificate, o.Key} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, text...)
	}
	write(t, dir+"/both.pem", string(both))
	return dir + "/both.pem"
}

func startHAProxyWith(t testing.TB, before []string, dir, rest string) *Process {
	t.Helper()
	write(t, dir+"/haproxy.cfg", `
global
    nbthread 1
    maxconn 1000
    ssl-server-verify none
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 300s
`+rest)
	command := append(append([]string(nil), before...), Need(t, "haproxy"), "-db", "-f", dir+"/haproxy.cfg")
	return startProcess(t, syscall.SIGKILL, command[0], command[1:]...)
}

// GatewayOptions describe a gateway in front of an app.
type GatewayOptions struct {
	// Before is a command that runs the gateway, for example in a network
	// namespace.
	Before   []string
	Port     int    // where it listens, at 127.0.0.1
	From     string // source address of its connections to the app
	Upstream string // the app's address
	TLS      bool   // TLS to the app
	Listens  func() error
}

// StartGateway starts nginx or haproxy as a gateway with a pool of connections to
// its app. It is stopped at the end of the test.
func StartGateway(t testing.TB, kind string, o GatewayOptions) {
	t.Helper()
	dir := tempDir(t)
	var p *Process
	switch kind {
	case "nginx":
		scheme := "http"
		if o.TLS {
			scheme = "https"
		}
		p = startNginxWith(t, o.Before, dir, fmt.Sprintf(`
    upstream app { server %s; keepalive 16; }
    server {
        listen 127.0.0.1:%d;
        location / {
            proxy_pass %s://app;
            proxy_bind %s;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`, o.Upstream, o.Port, scheme, o.From))
	case "haproxy":
		tls := ""
		if o.TLS {
			tls = "ssl verify none"
		}
		p = startHAProxyWith(t, o.Before, dir, fmt.Sprintf(`
frontend web
    bind 127.0.0.1:%d
    default_backend app
backend app
    http-reuse always
    server app %s source %s %s
`, o.Port, o.Upstream, o.From, tls))
	default:
		t.Fatalf("%s is not a gateway", kind)
	}
	p.Wait(t, o.Listens)
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
