package servers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// HAProxy is HAProxy, a master with one worker, in front of a backend.
//
// Its frontends: `web` (HTTP/1.1 and HTTP/2, with its own stats at /haproxy-stats
// for user lastcall, password hunter2; HAProxy itself answers /returned and denies
// /denied; /down leads to a server that does not exist, and /backend-stats to a
// backend with stats), `raw` (TCP), `stats`.
type HAProxy struct {
	*Process
	Port, Raw int    // of the frontends web and raw
	StatsPort int    // of the frontend stats
	Stats     string // address of the CSV page on the frontend stats
	WebStats  string // the same page on the frontend web, with credentials
	BackStats string // the same page on a backend of the frontend web
	Socket    string // path of the worker's runtime socket
	Master    string // path of the master's socket

	// Scoped has pages that show only some frontends: one shows its own frontend
	// and raw, the other web.
	Scoped struct{ Stats, Web int }

	dir, backend string
}

// StartHAProxy starts HAProxy. It is stopped at the end of the test.
func StartHAProxy(t testing.TB, backend *Backend) *HAProxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "haproxy") //nolint:usetesting // the path of a unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // under the system's folder for temporary files
	h := &HAProxy{
		dir: dir, backend: backend.Address,
		Socket: filepath.Join(dir, "worker"), Master: filepath.Join(dir, "master"),
	}
	freePorts(t, &h.Port, &h.Raw, &h.StatsPort, &h.Scoped.Stats, &h.Scoped.Web)
	h.Stats = fmt.Sprintf("http://127.0.0.1:%d/;csv", h.StatsPort)
	h.WebStats = fmt.Sprintf("http://lastcall:hunter2@127.0.0.1:%d/haproxy-stats;csv", h.Port)
	h.BackStats = fmt.Sprintf("http://127.0.0.1:%d/backend-stats;csv", h.Port)
	h.configure(t)
	h.Start(t)
	return h
}

// Start restarts HAProxy on the same ports after it has ended.
func (h *HAProxy) Start(t testing.TB) {
	t.Helper()
	h.Process = startProcess(t, syscall.SIGKILL, "haproxy", "-W", "-S", h.Master, "-f", h.configFile())
	// Not checked with a request, because HAProxy would count it.
	if err := h.wait(func() error {
		_, err := h.worker()
		if err == nil {
			_, err = say(h.Socket, "show info")
		}
		return err
	}); err != nil {
		t.Fatalf("HAProxy does not start: %v\n%s", err, h.log)
	}
}

// Reload replaces the worker. It returns when the new one runs and the old one has
// been told to end.
func (h *HAProxy) Reload(t testing.TB) {
	t.Helper()
	before, err := h.worker()
	if err != nil {
		t.Fatal(err)
	}
	h.Signal(t, syscall.SIGUSR2)
	if err := h.wait(func() error {
		now, err := h.worker()
		if err != nil || now == before {
			return errors.Join(errors.New("the worker has not been replaced"), err)
		}
		old, err := say(h.Master, "@!"+before+" show info")
		if err == nil && strings.Contains(old, "Stopping: 0") {
			err = errors.New("the old worker is still running")
		}
		return err
	}); err != nil {
		t.Fatalf("HAProxy: %v", err)
	}
}

// worker returns the process id of the current worker.
func (h *HAProxy) worker() (string, error) {
	answer, err := say(h.Master, "show proc")
	if err != nil {
		return "", err
	}
	_, workers, _ := strings.Cut(answer, "# workers\n")
	pid, _, found := strings.Cut(workers, " ")
	if _, err := strconv.Atoi(pid); err != nil || !found {
		return "", fmt.Errorf("no worker: %q", answer)
	}
	return pid, nil
}

// say sends a command to a unix socket and returns the answer.
func say(socket, command string) (string, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // read to its end
	if _, err := conn.Write([]byte(command + "\n")); err != nil {
		return "", err
	}
	if err := conn.CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func (h *HAProxy) configFile() string { return filepath.Join(h.dir, "haproxy.cfg") }

func (h *HAProxy) configure(t testing.TB) {
	t.Helper()
	nobody := 0
	freePorts(t, &nobody)
	config := fmt.Sprintf(`
global
    maxconn 200
    stats socket %s mode 600 level user
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
frontend web
    bind 127.0.0.1:%d
    stats enable
    stats uri /haproxy-stats
    stats auth lastcall:hunter2
    http-request return status 200 if { path /returned }
    http-request deny if { path /denied }
    use_backend down if { path /down }
    use_backend stats_backend if { path_beg /backend-stats }
    default_backend app
frontend raw
    mode tcp
    bind 127.0.0.1:%d
    default_backend raw_app
frontend stats
    bind 127.0.0.1:%d
    stats enable
    stats uri /
listen stats-scoped
    bind 127.0.0.1:%[7]d
    stats enable
    stats uri /
    stats scope .
    stats scope raw
listen web-scoped
    bind 127.0.0.1:%[8]d
    stats enable
    stats uri /
    stats scope web
backend app
    server a %[5]s
backend down
    retries 0
    server a 127.0.0.1:%[6]d
backend stats_backend
    stats enable
    stats uri /backend-stats
backend raw_app
    mode tcp
    server a %[5]s
`, h.Socket, h.Port, h.Raw, h.StatsPort, h.backend, nobody, h.Scoped.Stats, h.Scoped.Web)
	if err := os.WriteFile(h.configFile(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}
