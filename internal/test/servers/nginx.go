package servers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lastcall/internal/test/freeport"
)

// Nginx is nginx with two workers in front of a backend.
type Nginx struct {
	*Process
	Port   int    // of its HTTP/1.1 server
	HTTP2  int    // the port of its HTTP/2 server, without TLS
	Second int    // the port of another HTTP/1.1 server
	Status string // the address of stub_status
	// StatusSocket is the same on a unix socket.
	StatusSocket string

	dir, backend string
}

// StartNginx starts nginx. It is stopped at the end of the test.
func StartNginx(t testing.TB, backend *Backend) *Nginx {
	t.Helper()
	dir, err := os.MkdirTemp("", "nginx") //nolint:usetesting // the path of a unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // under the system's folder for temporary files
	n := &Nginx{dir: dir, backend: backend.Address, StatusSocket: "unix://" + filepath.Join(dir, "status.sock") + ":/stub_status"}
	var status int
	freePorts(t, &n.Port, &n.HTTP2, &n.Second, &status)
	n.Status = fmt.Sprintf("http://127.0.0.1:%d/stub_status", status)
	n.Start(t)
	return n
}

// Start restarts nginx on the same ports after it has ended.
func (n *Nginx) Start(t testing.TB) {
	t.Helper()
	n.configure(t, "stub_status;")
	n.Process = startProcess(t, syscall.SIGTERM, "nginx", "-e", "stderr", "-p", n.dir, "-c", n.configFile())
	// Not checked with a request: it would stay on the status page for a moment
	// after its answer.
	if err := n.wait(func() error { return listens(n.Port) }); err != nil {
		t.Fatalf("nginx does not start: %v\n%s", err, n.log)
	}
}

// workers is the number of worker processes.
const workers = 2

// Reload puts the given directives into the location of the status page, and
// returns when the workers have been replaced.
func (n *Nginx) Reload(t testing.TB, status string) {
	t.Helper()
	const replaced = "gracefully shutting down"
	before := n.logged(replaced)
	n.configure(t, status)
	n.Signal(t, syscall.SIGHUP)
	n.waitLogged(t, replaced, before+workers-1)
}

// KillWorkers kills the workers, as if each had crashed; the master starts new
// ones.
func (n *Nginx) KillWorkers(t testing.TB) {
	t.Helper()
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", n.cmd.Process.Pid)
	list, err := os.ReadFile(children)
	if err != nil {
		t.Fatal(err)
	}
	const crashed = "exited on signal 9"
	before := n.logged(crashed)
	for _, pid := range strings.Fields(string(list)) {
		var id int
		if _, err := fmt.Sscan(pid, &id); err != nil {
			t.Fatalf("%s: %v", children, err)
		}
		if err := syscall.Kill(id, syscall.SIGKILL); err != nil {
			t.Fatalf("killing a worker: %v", err)
		}
	}
	n.waitLogged(t, crashed, before)
}

func (n *Nginx) configFile() string { return filepath.Join(n.dir, "nginx.conf") }

// configure writes the configuration, with the given directives in the location of
// the status page.
func (n *Nginx) configure(t testing.TB, status string) {
	t.Helper()
	address := strings.TrimSuffix(strings.TrimPrefix(n.Status, "http://"), "/stub_status")
	config := fmt.Sprintf(`
daemon off;
user root; # where the tests run as root, so that the workers can use the test's folder
worker_processes %d;
pid nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:%d;
        listen 127.0.0.1:%d http2;
        listen 127.0.0.1:%d;
        location / {
            proxy_pass http://%s;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
        }
    }
    server {
        listen %s;
        listen unix:%s/status.sock;
        location = /stub_status { %s }
    }
}
`, workers, n.Port, n.HTTP2, n.Second, n.backend, address, n.dir, status)
	if err := os.WriteFile(n.configFile(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listens returns an error if nothing accepts connections on port.
func listens(port int) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		err = conn.Close()
	}
	return err
}

// freePorts sets each of ports to a free port of 127.0.0.1.
func freePorts(t testing.TB, ports ...*int) {
	t.Helper()
	taken := make(map[int]bool)
	for _, port := range ports {
		for *port == 0 || taken[*port] {
			*port = freeport.Port(t)
		}
		taken[*port] = true
	}
}
