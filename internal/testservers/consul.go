package testservers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// ConsulToken is the token that may do everything where ACLs are on.
const ConsulToken = "5d3a6f6e-1111-4c1b-9c7e-0a8d1f1f0001"

// ConsulOptions says what kind of Consul agent is started.
type ConsulOptions struct {
	Join *ConsulAgent // nil: a server; otherwise a client agent of that server
	ACL  bool         // deny by default; ConsulToken may do everything
	TLS  bool         // HTTPS only, with a certificate for 127.0.0.1
	// ClientCerts makes HTTPS refuse clients without a certificate of the CA.
	ClientCerts bool
}

// ConsulAgent is a running Consul agent: a server, or a client agent.
type ConsulAgent struct {
	Node    string // its name
	Address string // CONSUL_HTTP_ADDR
	DNS     string // host and port, UDP and TCP
	// For HTTPS: the CA, and a certificate and key that it has signed.
	CAFile, CertFile, KeyFile string

	options ConsulOptions
	bin     string
	dir     string
	ports   map[string]int
	process *os.Process
	exited  chan struct{}
}

// Consul starts an agent, waits until it answers for the cluster, and stops it
// when the test ends.
func Consul(t testing.TB, o ConsulOptions) *ConsulAgent {
	t.Helper()
	c := &ConsulAgent{
		Node:    fmt.Sprintf("node-%d-%d", os.Getpid(), consulNodes.Add(1)),
		options: o,
		bin:     Need(t, "consul"),
		dir:     t.TempDir(),
	}
	if o.TLS {
		c.writeCertificates(t)
	}
	t.Cleanup(func() {
		c.Kill()
		if t.Failed() {
			t.Logf("the log of Consul agent %s ends with:\n%s", c.Node, c.logEnd())
		}
	})
	// Another process may take a port between its choice and its use.
	for try := 1; ; try++ {
		c.choosePorts(t)
		c.Start(t)
		if err := c.wait(); err == nil {
			return c
		} else if try == 3 {
			t.Fatalf("Consul does not come up: %v\n%s", err, c.logEnd())
		}
		c.Kill()
	}
}

// consulNodes counts the agents, whose names must differ.
var consulNodes atomic.Int64

// Client returns a client that may do everything.
func (c *ConsulAgent) Client(t testing.TB) *api.Client {
	t.Helper()
	config := api.Config{Address: c.Address, TLSConfig: api.TLSConfig{CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}}
	if c.options.ACL {
		config.Token = ConsulToken
	}
	client, err := api.NewClient(&config)
	if err != nil {
		t.Fatalf("a client for Consul: %v", err)
	}
	return client
}

// Start starts an agent that was killed, on the same ports. It does not wait.
func (c *ConsulAgent) Start(t testing.TB) {
	t.Helper()
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the agent has its own descriptor
	file := filepath.Join(c.dir, "agent.hcl")
	if err := os.WriteFile(file, []byte(c.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"agent", "-config-file=" + file}
	if c.options.Join == nil {
		args = append(args, "-dev") // a server at once, in memory, with quick elections
	}
	cmd := exec.Command(c.bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics cleans nothing up
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting Consul: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed, mostly
		close(exited)
	}()
	c.process, c.exited = cmd.Process, exited
}

// Kill ends the agent at once, as a crash would.
func (c *ConsulAgent) Kill() {
	if c.process == nil {
		return
	}
	_ = c.process.Kill() // fails when it has ended by itself
	<-c.exited
	c.process = nil
}

// Hang makes the agent accept connections and answer nothing, until Resume.
func (c *ConsulAgent) Hang(t testing.TB) { c.signal(t, syscall.SIGSTOP) }

// Resume undoes Hang.
func (c *ConsulAgent) Resume(t testing.TB) { c.signal(t, syscall.SIGCONT) }

func (c *ConsulAgent) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := c.process.Signal(s); err != nil {
		t.Fatalf("sending %v to Consul: %v", s, err)
	}
}

// config is the agent's configuration.
func (c *ConsulAgent) config() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("node_name = %q", c.Node)
	say(`bind_addr = "127.0.0.1"`)
	say(`client_addr = "127.0.0.1"`)
	say(`disable_update_check = true`)
	say(`log_level = "info"`)
	// What -dev sets calls an agent dead when the machine is busy for a moment.
	say(`gossip_lan { probe_interval = "1s"`)
	say(`  probe_timeout = "500ms"`)
	say(`  suspicion_mult = 4 }`)
	say(`ports {`)
	for name, port := range c.ports {
		say("  %s = %d", name, port)
	}
	for _, name := range []string{"grpc", "grpc_tls", "serf_wan"} {
		say("  %s = -1", name)
	}
	say(`}`)
	if join := c.options.Join; join != nil {
		say("data_dir = %q", filepath.Join(c.dir, "data"))
		say("retry_join = [%q]", "127.0.0.1:"+strconv.Itoa(join.ports["serf_lan"]))
		say(`retry_interval = "200ms"`)
	}
	if c.options.ACL {
		say(`acl { enabled = true`)
		say(`  default_policy = "deny"`)
		say(`  tokens { initial_management = %q`, ConsulToken)
		say(`    agent = %q } }`, ConsulToken)
	}
	if c.options.TLS {
		say(`tls { https { ca_file = %q`, c.CAFile)
		say(`  cert_file = %q`, c.CertFile)
		say(`  key_file = %q`, c.KeyFile)
		say(`  verify_incoming = %t } }`, c.options.ClientCerts)
	}
	return b.String()
}

// choosePorts picks ports that are free now.
func (c *ConsulAgent) choosePorts(t testing.TB) {
	t.Helper()
	web, noWeb, scheme := "http", "https", "http"
	if c.options.TLS {
		web, noWeb, scheme = "https", "http", "https"
	}
	c.ports = map[string]int{noWeb: -1}
	var held []net.Listener // until all are chosen, so that they differ
	for _, name := range []string{web, "dns", "serf_lan", "server"} {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, tcp)
		c.ports[name] = tcp.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener has no other address
	}
	for _, tcp := range held {
		_ = tcp.Close() // nothing was sent
	}
	c.Address = fmt.Sprintf("%s://127.0.0.1:%d", scheme, c.ports[web])
	c.DNS = "127.0.0.1:" + strconv.Itoa(c.ports["dns"])
}

// wait returns once the agent answers for the cluster: it has a leader, and
// the catalog has the agent's node.
func (c *ConsulAgent) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	config := api.Config{Address: c.Address, Token: ConsulToken, TLSConfig: api.TLSConfig{CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}}
	if !c.options.ACL {
		config.Token = ""
	}
	client, err := api.NewClient(&config)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// An agent that has just come up may hold a call until it finds a server.
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		checks, _, err := client.Health().Node(c.Node, (&api.QueryOptions{}).WithContext(try))
		cancel()
		if err == nil && slices.ContainsFunc(checks, func(check *api.HealthCheck) bool {
			return check.CheckID == "serfHealth" && check.Status == api.HealthPassing
		}) {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.exited:
			return fmt.Errorf("it has ended")
		case <-ctx.Done():
			return fmt.Errorf("%w; the last answer: %w", ctx.Err(), err)
		}
	}
}

// WaitReady waits until an agent that was started again answers for the cluster.
func (c *ConsulAgent) WaitReady(t testing.TB) {
	t.Helper()
	if err := c.wait(); err != nil {
		t.Fatalf("Consul does not come back: %v\n%s", err, c.logEnd())
	}
}

func (c *ConsulAgent) logEnd() []byte {
	log, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return log[max(0, len(log)-4000):]
}

// writeCertificates makes a CA, and a certificate for 127.0.0.1 that it has
// signed, good for servers and clients.
func (c *ConsulAgent) writeCertificates(t testing.TB) {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("making certificates: %v", err)
		}
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(c.dir, name)
		var b bytes.Buffer
		fail(pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}))
		fail(os.WriteFile(file, b.Bytes(), 0o600))
		return file
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test CA of " + c.Node},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	fail(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "consul.test"},
		DNSNames:     []string{"consul.test"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	fail(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	fail(err)
	c.CAFile = write("ca.pem", "CERTIFICATE", caDER)
	c.CertFile = write("cert.pem", "CERTIFICATE", leafDER)
	c.KeyFile = write("key.pem", "PRIVATE KEY", keyDER)
}
