package dashboard

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

var program sidecar.Program

func TestMain(m *testing.M) { os.Exit(sidecar.Main(m, &program)) }

// monitoring is the folder of the dashboard and the rules.
const monitoring = "../../../deploy/monitoring"

// patience is how long one step may take on a busy machine.
const patience = time.Minute

// pod is a sidecar, the app's file, and an instance that is registered in Consul.
type pod struct {
	*sidecar.Sidecar
	name, file string
}

// startPod starts a pod and lets Prometheus scrape it. env is added to the common
// settings.
func startPod(t testing.TB, name string, consul *servers.ConsulAgent, prom *prometheus, env ...string) *pod {
	t.Helper()
	p := &pod{name: name, file: filepath.Join(t.TempDir(), "inflight")}
	p.inFlight(t, 0)
	err := consul.Client(t).Agent().ServiceRegister(&api.AgentServiceRegistration{ID: name, Name: "web", Address: "127.0.0.1", Port: 8080})
	if err != nil {
		t.Fatalf("registering %s: %v", name, err)
	}
	p.Sidecar = sidecar.Start(t, &program, append([]string{
		"LASTCALL_POD_NAME=" + name, "LASTCALL_POD_IP=127.0.0.1",
		"LASTCALL_COUNTERS=file", "LASTCALL_FILE_PATH=" + p.file,
		"LASTCALL_REGISTRIES=consul", "CONSUL_HTTP_ADDR=" + consul.Address, "LASTCALL_CONSUL_SERVICE_ID=" + name,
	}, env...)...)
	prom.scrape(t, name, p.Sidecar)
	return p
}

// app is an HTTP server with its port.
type app struct {
	address string
	server  *http.Server
	served  sync.WaitGroup
}

// startApp starts an app. The query of a request says how long the request takes.
func startApp(t testing.TB) *app {
	t.Helper()
	a := &app{address: freeport.Address(t)}
	a.start(t)
	t.Cleanup(a.stop)
	return a
}

// start starts the server, also again after stop.
func (a *app) start(t testing.TB) {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	a.server = &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		takes, _ := time.ParseDuration(r.URL.RawQuery) // zero without a query
		select {
		case <-time.After(takes):
		case <-r.Context().Done():
		}
	})}
	server := a.server
	a.served.Go(func() { _ = server.Serve(l) }) // until stop
}

// stop closes the server and its connections.
func (a *app) stop() {
	_ = a.server.Close() // open connections do not matter
	a.served.Wait()
}

func (a *app) port() string {
	_, port, _ := strings.Cut(a.address, ":")
	return port
}

// inFlight sets the number of requests in the pod's file.
func (p *pod) inFlight(t testing.TB, requests int) {
	t.Helper()
	err := os.WriteFile(p.file+".tmp", []byte(strconv.Itoa(requests)+"\n"), 0o600)
	if err == nil {
		err = os.Rename(p.file+".tmp", p.file)
	}
	if err != nil {
		t.Fatal(err)
	}
}
