package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lastcall/internal/bench/fleet"
	"lastcall/internal/test/cputime"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
)

// The goals for one drain with Eureka's default caches.
const (
	mostCalls      = 40 // with 200/2,000 instances
	mostCallsEver  = 60 // with any number of instances
	mostUnpacked   = 8e6
	mostWire       = 2e6
	mostCPU        = 300 * time.Millisecond
	mostConsul     = 12 // calls
	fleetDrains    = 1000
	fleetDrainsIn  = time.Minute
	registryCache  = 30 * time.Second
	clientsRefresh = 30 * time.Second
)

// drainCost is the cost of one drain for its registry and for the sidecar.
type drainCost struct {
	calls       []fleet.Call
	connections int
	began       time.Time
	took        time.Duration
	cpu         time.Duration
	memory      float64 // peak, in MB
}

func (c drainCost) bytes() (wire, unpacked float64) {
	for _, call := range c.calls {
		wire += float64(call.Wire)
		unpacked += float64(call.Unpacked)
	}
	return wire, unpacked
}

// BenchmarkRegistryCost measures the cost of one drain for the registry, for
// several sizes of the fleet. All sizes run at the same time, because a drain
// mostly waits.
func BenchmarkRegistryCost(b *testing.B) {
	sizes := []fleet.Size{{App: 20, Others: 200}, {App: 200, Others: 2_000}, {App: 1_000, Others: 10_000}}
	costs := make([]drainCost, len(sizes))
	var running sync.WaitGroup
	var bare drainCost
	running.Go(func() { bare = bareCost(b) })
	for n, size := range sizes {
		running.Go(func() { costs[n] = eurekaCost(b, size) })
	}
	running.Wait()
	perSecond := bare.cpu.Seconds() / bare.took.Seconds()
	ofRegistry := func(c drainCost) float64 { return max(c.cpu.Seconds()-perSecond*c.took.Seconds(), 0) }

	var out strings.Builder
	out.WriteString("| registry, instances of the application/others | calls | on the wire | unpacked | connections | CPU for the registry | its peak memory | the drain |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for n, size := range sizes {
		c := costs[n]
		wire, unpacked := c.bytes()
		fmt.Fprintf(&out, "| Eureka, %s/%s | %d | %.2f MB | %.2f MB | %d | %.2f s | %.1f MB | %.1f s |\n",
			thousands(size.App), thousands(size.Others), len(c.calls), wire/1e6, unpacked/1e6, c.connections, ofRegistry(c), c.memory, c.took.Seconds())
		most := mostCallsEver
		if size.App <= 200 {
			most = mostCalls
			if wire > mostWire || unpacked > mostUnpacked || ofRegistry(c) > mostCPU.Seconds() {
				b.Errorf("a drain at %v costs %.1f MB on the wire, %.1f MB unpacked, %.2f s of CPU: more than the goals", size, wire/1e6, unpacked/1e6, ofRegistry(c))
			}
		}
		if len(c.calls) > most || float64(len(c.calls)) > c.took.Seconds()+1 {
			b.Errorf("a drain at %v makes %d calls in %v: more than the goals", size, len(c.calls), c.took)
		}
	}
	for _, agentless := range []bool{false, true} {
		c := consulCost(b, agentless)
		name := "Consul, agent"
		if agentless {
			name = "Consul, agentless"
		}
		wire, _ := c.bytes()
		fmt.Fprintf(&out, "| %s, 200 | %d | %.2f MB | %.2f MB | %d | %.2f s | %.1f MB | %.1f s |\n",
			name, len(c.calls), wire/1e6, wire/1e6, c.connections, ofRegistry(c), c.memory, c.took.Seconds())
		if len(c.calls) > mostConsul {
			b.Errorf("%s: a drain makes %d calls, want at most %d: %v", name, len(c.calls), mostConsul, c.calls)
		}
	}
	out.WriteString("| the shell hook, `curl` and `sleep 30` | 1 | 0.00 MB | 0.00 MB | 1 | | | 30 s |\n")
	out.WriteString(javaClient(costs[1].took))
	fmt.Fprintf(&out, "\nCPU for the registry is what is left of the sidecar's when that of a drain of the same length without a registry is taken off, %.1f ms a second. Connections are those that a drain opens besides the one that is there.\n", 1000*perSecond)
	out.WriteString("\n" + togetherCost(costs[1]) + "\n" + provenance(b))
	fmt.Println("\n" + out.String())
	put(b, *write, "registry cost", out.String())
}

// javaClient returns the cost of one Eureka client in the same time: a heartbeat
// and the changes every 30 s.
func javaClient(took time.Duration) string {
	beats := int(took/(30*time.Second)) + 1
	return fmt.Sprintf("| one Java client that serves in that time (heartbeats, `apps/delta`) | %d | 0.00 MB | 0.00 MB | 1 | | | |\n", 2*beats)
}

// togetherCost computes the load if the pods of one application begin their drains
// within a minute, each like the measured one.
func togetherCost(c drainCost) string {
	random := rand.New(rand.NewPCG(1, 2))
	calls, wire := map[int]int{}, map[int]float64{}
	for range fleetDrains {
		start := time.Duration(random.Int64N(int64(fleetDrainsIn)))
		for _, call := range c.calls {
			second := int((start + call.At.Sub(c.began)) / time.Second)
			calls[second]++
			wire[second] += float64(call.Wire)
		}
	}
	mostCalls, mostBytes := 0, 0.0
	for second := range calls {
		mostCalls, mostBytes = max(mostCalls, calls[second]), max(mostBytes, wire[second])
	}
	return fmt.Sprintf("%s pods that begin to drain within %v, each as the one of 200/2,000: at most %s calls and %.1f MB on the wire in a second, all servers together.\n",
		thousands(fleetDrains), fleetDrainsIn, thousands(mostCalls), mostBytes/1e6)
}

func eurekaCost(b *testing.B, size fleet.Size) drainCost {
	app := listen(b)
	port := app.Addr().(*net.TCPAddr).Port
	server, stop := fleet.Start(size, registryCache, port)
	b.Cleanup(stop)
	return measureDrain(b, app, []string{
		"LASTCALL_REGISTRIES=eureka", "LASTCALL_EUREKA_URLS=" + server.URL, "LASTCALL_EUREKA_APP=orders",
		"LASTCALL_EUREKA_CLIENT_REFRESH=" + clientsRefresh.String(),
	}, server.Reset, server.Calls)
}

// bareCost measures a drain of about the same length without a registry. This is
// the sidecar's cost of watching the app.
func bareCost(b *testing.B) drainCost {
	return measureDrain(b, listen(b), []string{"LASTCALL_ENDPOINTS_WAIT=45s"}, func() {}, func() ([]fleet.Call, int) { return nil, 0 })
}

// consulCost measures a drain with the real server. A proxy in front of it counts
// the calls.
func consulCost(b *testing.B, agentless bool) drainCost {
	consul := servers.StartConsul(b, servers.ConsulOptions{})
	app := listen(b)
	port := app.Addr().(*net.TCPAddr).Port
	client := consul.Client(b)
	for n := range 200 {
		ip, at := fmt.Sprintf("10.7.0.%d", n), 8080
		if n == 0 {
			ip, at = "127.0.0.1", port
		}
		id := fmt.Sprintf("orders-%d", n)
		var err error
		if n == 0 && !agentless {
			err = client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "orders", Address: ip, Port: at})
		} else {
			_, err = client.Catalog().Register(&api.CatalogRegistration{Node: "k8s-virtual", Address: "10.0.0.7", SkipNodeUpdate: n > 0,
				Service: &api.AgentService{ID: id, Service: "orders", Address: ip, Port: at}}, nil)
		}
		if err != nil {
			b.Error(err)
		}
	}
	counter := &callCounter{}
	to, err := url.Parse(consul.Address)
	if err != nil {
		b.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &countedWriter{ResponseWriter: w}
		at := time.Now()
		proxy.ServeHTTP(counted, r)
		counter.add(fleet.Call{At: at, What: r.Method + " " + r.URL.Path, Wire: counted.n, Unpacked: counted.n})
	}))
	front.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			counter.connected()
		}
	}
	front.Start()
	b.Cleanup(front.CloseClientConnections)
	return measureDrain(b, app, []string{"LASTCALL_REGISTRIES=consul", "CONSUL_HTTP_ADDR=" + front.URL}, counter.reset, counter.get)
}

// measureDrain drains a pod whose app ends when it gets SIGTERM.
func measureDrain(b *testing.B, app net.Listener, env []string, reset func(), get func() ([]fleet.Call, int)) drainCost {
	s := sidecar.Start(b, &program, append(env,
		fmt.Sprintf("LASTCALL_APP_PORT=%d", app.Addr().(*net.TCPAddr).Port), "LASTCALL_POD_IP=127.0.0.1",
		"LASTCALL_GRACE_PERIOD=100s", "LASTCALL_RESERVE=5s")...)
	if len(env) > 1 {
		s.AwaitLog(b, "instance found")
	}
	reset()
	cpu := cputime.Of(b, s.Pid)
	c := drainCost{began: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	answer := <-s.PreStop(ctx)
	c.took = time.Since(c.began)
	if answer.Code != http.StatusOK {
		b.Errorf("the hook was answered with %d: %s", answer.Code, answer.Body)
	}
	c.cpu = cputime.Of(b, s.Pid) - cpu
	c.memory = memory(b, s, "VmHWM")
	if err := app.Close(); err != nil {
		b.Error(err)
	}
	s.Signal(b, syscall.SIGTERM)
	<-s.Exited()
	c.calls, c.connections = get()
	return c
}

func listen(b *testing.B) net.Listener {
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return listener
}

// callCounter counts the calls through a proxy.
type callCounter struct {
	mu          sync.Mutex
	calls       []fleet.Call
	connections int
}

func (c *callCounter) add(call fleet.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
}

func (c *callCounter) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connections++
}

func (c *callCounter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.connections = nil, 0
}

func (c *callCounter) get() ([]fleet.Call, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]fleet.Call(nil), c.calls...), c.connections
}

// countedWriter counts the bytes of an answer.
type countedWriter struct {
	http.ResponseWriter
	n int
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += n
	return n, err
}

// Unwrap implements the interface that http.ResponseController needs.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
