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

// StartZooKeeper starts a server that is stopped at the end of the test.
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

// StartDubboProvider starts a provider that answers each call with its name. It
// returns when the provider has registered. The provider is stopped at the end of
// the test.
func StartDubboProvider(t testing.TB, z *ZooKeeper, name string) *DubboProvider {
	t.Helper()
	var port, qos int
	freePorts(t, &port, &qos)
	p := &DubboProvider{QoS: fmt.Sprintf("http://127.0.0.1:%d", qos)}
	p.Process = startJava(t, "-cp", Need(t, "dubbo-zookeeper.jar"), "apps.Provider", name, z.address(), strconv.Itoa(port), strconv.Itoa(qos), "127.0.0.1")
	p.Wait(t, func() error { return healthy(t, p.QoS+"/ready") })
	return p
}

// StartDubboConsumer starts a consumer and returns its URL. Each GET of the URL
// makes one call. The header X-Pod names the provider that answered. The consumer
// is stopped at the end of the test.
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

// StartSpringApp starts an app that is stopped at the end of the test. Options say
// where it registers. Its page /choose/orders returns the instance that its own
// load balancer would call, or 404 if there is none.
func StartSpringApp(t testing.TB, options ...string) *SpringApp {
	t.Helper()
	var port int
	freePorts(t, &port)
	a := &SpringApp{Address: fmt.Sprintf("127.0.0.1:%d", port)}
	a.URL = "http://" + a.Address
	args := Spring(t, "steps-spring",
		"--server.address=127.0.0.1", "--server.port="+strconv.Itoa(port), "--spring.application.name=orders",
		"--management.endpoints.web.exposure.include=serviceregistry",
		"--spring.cloud.loadbalancer.cache.enabled=false",
	)
	a.Process = startProcess(t, syscall.SIGKILL, "java", append(args, options...)...)
	a.Wait(t, func() error { return healthy(t, a.URL+"/choose/orders") })
	return a
}
