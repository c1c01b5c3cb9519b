package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// ConsulToken is the token with all permissions when ACLs are on.
const ConsulToken = "5d3a6f6e-1111-4c1b-9c7e-0a8d1f1f0001"

// ConsulOptions describes the Consul agent to start.
type ConsulOptions struct {
	Join *ConsulAgent // nil: a server; otherwise a client agent of that server
	ACL  bool         // deny by default; ConsulToken has all permissions
	TLS  bool         // HTTPS only, with a certificate for 127.0.0.1
	// ClientCerts makes HTTPS refuse clients without a certificate of the CA.
	ClientCerts bool
}

// ConsulAgent is a running Consul agent: a server, or a client agent.
type ConsulAgent struct {
	*Process
	Node    string // its name
	Address string // CONSUL_HTTP_ADDR
	DNS     string // host and port, UDP and TCP
	// With TLS: the CA, and a certificate signed by it with its key.
	CAFile, CertFile, KeyFile string

	options                 ConsulOptions
	dir                     string
	web, dns, serf, servers int // ports
}

// StartConsul starts an agent and waits until it answers for its cluster. The agent
// is stopped at the end of the test.
func StartConsul(t testing.TB, o ConsulOptions) *ConsulAgent {
	t.Helper()
	c := &ConsulAgent{
		Node:    fmt.Sprintf("node-%d-%d", os.Getpid(), consulNodes.Add(1)),
		options: o,
		dir:     t.TempDir(),
	}
	freePorts(t, &c.web, &c.dns, &c.serf, &c.servers)
	c.DNS = fmt.Sprintf("127.0.0.1:%d", c.dns)
	c.Address = fmt.Sprintf("http://127.0.0.1:%d", c.web)
	if o.TLS {
		c.Address = fmt.Sprintf("https://127.0.0.1:%d", c.web)
		c.CAFile, c.CertFile, c.KeyFile = WriteCertificates(t, c.dir, c.Node)
	}
	c.Start(t)
	return c
}

// consulNodes counts the agents, whose names must differ.
var consulNodes atomic.Int64

// Start restarts a killed agent on the same ports. A server has then lost all its
// data; a client agent has lost nothing.
func (c *ConsulAgent) Start(t testing.TB) {
	t.Helper()
	file := filepath.Join(c.dir, "agent.hcl")
	if err := os.WriteFile(file, []byte(c.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"agent", "-config-file=" + file}
	if c.options.Join == nil {
		args = append(args, "-dev") // an in-memory server that is ready at once, with quick elections
	}
	c.Process = startProcess(t, syscall.SIGKILL, "consul", args...)
	if err := c.wait(c.ready(t)); err != nil {
		t.Fatalf("Consul does not start: %v\n%s", err, c.log)
	}
}

// Client returns a client with all permissions.
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

// ready returns a function that checks whether the agent answers for its cluster:
// there is a leader, and the agent's node is known and healthy.
func (c *ConsulAgent) ready(t testing.TB) func() error {
	t.Helper()
	client := c.Client(t)
	return func() error {
		// A new agent may hold a call until it finds a server.
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		checks, _, err := client.Health().Node(c.Node, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		for _, check := range checks {
			if check.CheckID == "serfHealth" && check.Status == api.HealthPassing {
				return nil
			}
		}
		return errors.New("its node is not known yet")
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
	// With the settings of -dev, an agent counts as dead when the machine is busy
	// for a moment.
	say(`gossip_lan { probe_interval = "1s"`)
	say(`  probe_timeout = "500ms"`)
	say(`  suspicion_mult = 4 }`)
	say(`ports { dns = %d`, c.dns)
	say(`  serf_lan = %d`, c.serf)
	say(`  server = %d`, c.servers)
	if c.options.TLS {
		say(`  https = %d`, c.web)
		say(`  http = -1`)
	} else {
		say(`  http = %d`, c.web)
	}
	say(`  grpc = -1`)
	say(`  grpc_tls = -1`)
	say(`  serf_wan = -1 }`)
	if join := c.options.Join; join != nil {
		say("data_dir = %q", filepath.Join(c.dir, "data"))
		say("retry_join = [%q]", fmt.Sprintf("127.0.0.1:%d", join.serf))
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
