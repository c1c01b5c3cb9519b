package servers

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
)

// Rnacos is a running rnacos: a server with the HTTP API v1 and the gRPC API of
// Nacos.
type Rnacos struct {
	*Process
	URL     string // with its context path
	Address string // host and port
	offset  int    // from the HTTP port to the gRPC port
}

// StartRnacos starts a server that is stopped at the end of the test.
func StartRnacos(t testing.TB) *Rnacos {
	t.Helper()
	var web, grpc int
	freePorts(t, &web, &grpc)
	s := &Rnacos{
		URL:     fmt.Sprintf("http://127.0.0.1:%d/nacos", web),
		Address: fmt.Sprintf("127.0.0.1:%d", web),
		offset:  grpc - web,
	}
	dir := t.TempDir()
	s.Process = startProcess(t, syscall.SIGKILL, "env",
		"RNACOS_HTTP_PORT="+strconv.Itoa(web), "RNACOS_GRPC_PORT="+strconv.Itoa(grpc), "RNACOS_HTTP_CONSOLE_PORT=0",
		"RNACOS_RAFT_NODE_ADDR=127.0.0.1:"+strconv.Itoa(grpc), "RNACOS_DATA_DIR="+dir, "RNACOS_CONFIG_DB_DIR="+dir,
		"RNACOS_HTTP_WORKERS=2", "HOME="+dir, Need(t, "rnacos"))
	s.Wait(t, func() error {
		return healthy(t, s.URL+"/v1/ns/instance/list?serviceName=DEFAULT_GROUP@@nobody")
	})
	return s
}

// NacosApp is a running program with the Java client of Nacos.
type NacosApp struct {
	*Process
	Port int
	URL  string
}

// StartNacosProvider starts an app that registers 127.0.0.1:Port, and registers it
// again at each POST to its URL. It is stopped at the end of the test.
func StartNacosProvider(t testing.TB, s *Rnacos, service string, weight float64) *NacosApp {
	t.Helper()
	return startNacosApp(t, s, "apps.Provider", service, strconv.FormatFloat(weight, 'f', -1, 64))
}

// StartNacosConsumer starts an app that subscribes to the service. It answers each
// GET of its URL with the instances that it would call. It is stopped at the end of
// the test.
func StartNacosConsumer(t testing.TB, s *Rnacos, service string) *NacosApp {
	t.Helper()
	return startNacosApp(t, s, "apps.Consumer", service)
}

func startNacosApp(t testing.TB, s *Rnacos, class, service string, more ...string) *NacosApp {
	t.Helper()
	a := &NacosApp{}
	freePorts(t, &a.Port)
	a.URL = fmt.Sprintf("http://127.0.0.1:%d/", a.Port)
	args := []string{
		"-Dnacos.server.grpc.port.offset=" + strconv.Itoa(s.offset), "-Duser.home=" + t.TempDir(),
		"-cp", Need(t, "nacos-client.jar"), class, s.Address, service, strconv.Itoa(a.Port),
	}
	a.Process = startJava(t, append(args, more...)...)
	a.Wait(t, func() error { return healthy(t, a.URL) })
	return a
}
