package consul

import (
	"testing"

	"lastcall/internal/test/servers"
)

func TestTLS(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{TLS: true})
	h := agentless(t, server)
	h.Register(t)
	host := server.Address[len("https://"):]
	works := func(t *testing.T, config Config) {
		t.Helper()
		config.ServiceID = h.id
		r, err := New(config, h.pod)
		check(t, err)
		must(t, r.Withdraw)
		if !withdrawn(t, r) {
			t.Error("Withdrawn returns false")
		}
		must(t, r.Restore)
	}
	t.Run("with its CA", func(t *testing.T) { works(t, Config{Address: server.Address, CACert: server.CAFile}) })
	t.Run("CONSUL_HTTP_SSL", func(t *testing.T) { works(t, Config{Address: host, SSL: "true", CACert: server.CAFile}) })
	t.Run("by the name in its certificate", func(t *testing.T) {
		works(t, Config{Address: server.Address, CACert: server.CAFile, TLSServerName: "consul.test"})
	})
	t.Run("not verified", func(t *testing.T) { works(t, Config{Address: server.Address, SSLVerify: "false"}) })

	t.Run("without its CA", func(t *testing.T) {
		failing(t, at(t, Config{Address: server.Address}), "x509", "CONSUL_CACERT")
	})
	t.Run("by a name that is not in its certificate", func(t *testing.T) {
		failing(t, at(t, Config{Address: server.Address, CACert: server.CAFile, TLSServerName: "other.test"}), "x509", "CONSUL_TLS_SERVER_NAME")
	})
	t.Run("without TLS", func(t *testing.T) {
		failing(t, at(t, Config{Address: host}), "CONSUL_HTTP_SSL")
	})
	t.Run("with TLS where there is none", func(t *testing.T) {
		plain := servers.StartConsul(t, servers.ConsulOptions{})
		failing(t, at(t, Config{Address: "https" + plain.Address[len("http"):]}), "http://")
	})
}

func TestClientCertificate(t *testing.T) {
	server := servers.StartConsul(t, servers.ConsulOptions{TLS: true, ClientCerts: true})
	config := Config{Address: server.Address, CACert: server.CAFile}
	failing(t, at(t, config), "CONSUL_CLIENT_CERT")
	config.ClientCert, config.ClientKey = server.CertFile, server.KeyFile
	must(t, at(t, config).Withdraw)
}
