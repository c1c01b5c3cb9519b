package servers

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
)

// ZooKeeper is a running ZooKeeper server.
type ZooKeeper struct {
	*Process
	Port int
}

// StartZooKeeper starts a server, which ends with the test.
func StartZooKeeper(t testing.TB) *ZooKeeper {
	t.Helper()
	z := &ZooKeeper{}
	freePorts(t, &z.Port)
	z.Process = startJava(t, "-Dzookeeper.admin.enableServer=false", "-cp", Need(t, "dubbo-zookeeper.jar"),
		"org.apache.zookeeper.server.ZooKeeperServerMain", strconv.Itoa(z.Port), t.TempDir())
	z.Wait(t, func() error { return listens(z.Port) })
	return z
}

func (z *ZooKeeper) address() string { return fmt.Sprintf("127.0.0.1:%d", z.Port) }

// DubboProvider is a running provider of the service apps.Greeter.
type DubboProvider struct {
	*Process
	QoS string // the address of its QoS server
}

// StartDubboProvider starts a provider, which answers each call with its name
// and ends with the test. It is up when it has registered.
func StartDubboProvider(t testing.TB, z *ZooKeeper, name string) *DubboProvider {
	t.Helper()
	var port, qos int
	freePorts(t, &port, &qos)
	p := &DubboProvider{QoS: fmt.Sprintf("http://127.0.0.1:%d", qos)}
	p.Process = startJava(t, "-cp", Need(t, "dubbo-zookeeper.jar"), "apps.Provider", name, z.address(), strconv.Itoa(port), strconv.Itoa(qos), "127.0.0.1")
	p.Wait(t, func() error { return healthy(t, p.QoS+"/ready") })
	return p
}

// StartDubboConsumer starts a consumer, which ends with the test. Each GET of
// the URL that it returns is one call. The header X-Pod names its provider.
func StartDubboConsumer(t testing.TB, z *ZooKeeper) string {
	t.Helper()
	var port int
	freePorts(t, &port)
	c := startJava(t, "-cp", Need(t, "dubbo-zookeeper.jar"), "apps.Consumer", z.address(), strconv.Itoa(port))
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	c.Wait(t, func() error { return healthy(t, url) })
	return url
}

// SpringApp is a running Spring Cloud app that has registered as orders, with
// the endpoint serviceregistry exposed.
type SpringApp struct {
	*Process
	Address string // host and port
	URL     string
}

// StartSpringApp starts an app, which ends with the test. Options say where it
// registers. Its page /choose/orders says which instance its own load balancer
// would call; 404 says that there is none.
func StartSpringApp(t testing.TB, options ...string) *SpringApp {
	t.Helper()
	var port int
	freePorts(t, &port)
	a := &SpringApp{Address: fmt.Sprintf("127.0.0.1:%d", port)}
	a.URL = "http://" + a.Address
	args := []string{
		"-jar", Need(t, "steps-spring.jar"), "--spring.main.banner-mode=off",
		"--server.address=127.0.0.1", "--server.port=" + strconv.Itoa(port), "--spring.application.name=orders",
		"--management.endpoints.web.exposure.include=serviceregistry",
		"--spring.cloud.loadbalancer.cache.enabled=false",
	}
	a.Process = startJava(t, append(args, options...)...)
	a.Wait(t, func() error { return healthy(t, a.URL+"/choose/orders") })
	return a
}

// startJava starts a Java program, made to start soon rather than to run fast.
func startJava(t testing.TB, args ...string) *Process {
	t.Helper()
	quick := []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx160m"}
	return startProcess(t, syscall.SIGKILL, "java", append(quick, args...)...)
}
