package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is the user that PostgreSQL runs as if the tests run as root: PostgreSQL
// refuses to run as root.
const nobody = 65534

// PatroniMember is a PostgreSQL server with its Patroni.
type PatroniMember struct {
	*Process
	Name string
	URL  string // of Patroni's REST API
}

// StartPatroni starts a primary and its replicas, which coordinate through Consul.
// It returns when all are running, with the primary first. They are stopped at the
// end of the test.
func StartPatroni(t testing.TB, members int) []*PatroniMember {
	t.Helper()
	consul := StartConsul(t, ConsulOptions{})
	postgres := needPostgres(t)
	dir := tempDir(t)
	// In root's home, another user could not read it.
	packages := filepath.Join(dir, "packages")
	if err := os.CopyFS(packages, os.DirFS(Need(t, "patroni.d"))); err != nil {
		t.Fatal(err)
	}
	all := make([]*PatroniMember, members)
	for n := range members {
		m := &PatroniMember{Name: fmt.Sprintf("p%d", n)}
		all[n] = m
		var rest, sql int
		freePorts(t, &rest, &sql)
		m.URL = fmt.Sprintf("http://127.0.0.1:%d", rest)
		home := filepath.Join(dir, m.Name)
		config := filepath.Join(home, "patroni.yaml")
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, config, patroniConfig(m.Name, home, postgres, strings.TrimPrefix(consul.Address, "http://"), rest, sql))
		args := []string{"PYTHONPATH=" + packages, "HOME=" + home, "python3", "-m", "patroni", config}
		if os.Getuid() == 0 {
			if err := chownAll(home, nobody); err != nil {
				t.Fatal(err)
			}
			args = append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--pdeathsig", "TERM", "env"}, args...)
		} else {
			args = append([]string{"env"}, args...)
		}
		m.Process = startProcess(t, syscall.SIGTERM, args[0], args[1:]...)
		// PostgreSQL runs in its own process group, and ends when Patroni gets
		// SIGTERM.
		t.Cleanup(func() {
			_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			m.WaitExit(t)
		})
		page := "/replica"
		if n == 0 {
			page = "/primary"
		}
		m.Wait(t, func() error { return healthy(t, m.URL+page) })
	}
	return all
}

func patroniConfig(name, home, postgres, consul string, rest, sql int) string {
	return fmt.Sprintf(`
scope: test
name: %[1]s
restapi: {listen: "127.0.0.1:%[5]d", connect_address: "127.0.0.1:%[5]d"}
consul: {host: "%[4]s"}
bootstrap:
  dcs: {ttl: 20, loop_wait: 1, retry_timeout: 3, postgresql: {use_slots: true}}
  initdb: [{encoding: UTF8}, {locale: C}, no-sync]
postgresql:
  listen: "127.0.0.1:%[6]d"
  connect_address: "127.0.0.1:%[6]d"
  data_dir: %[2]s/data
  bin_dir: %[3]s
  pgpass: %[2]s/pgpass
  authentication:
    superuser: {username: postgres, password: test}
    replication: {username: replicator, password: test}
  parameters: {unix_socket_directories: %[2]s, fsync: "off", max_connections: "20", shared_buffers: 16MB}
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
`, name, home, postgres, consul, rest, sql)
}

// needPostgres returns the folder of PostgreSQL's programs, which Debian does not
// add to PATH.
func needPostgres(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path) // the other programs are there too
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is well formed
	if len(found) == 0 {
		Missing(t, "postgres")
	}
	return filepath.Dir(found[len(found)-1])
}

func chownAll(dir string, user int) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, user, user)
	})
}
