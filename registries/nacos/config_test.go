package nacos

import (
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lastcall/drain"
)

func TestMistakes(t *testing.T) {
	t.Parallel()
	good := func() (Config, drain.Pod) {
		return Config{
			URLs: []string{"http://nacos-0:8848/nacos", " https://nacos-1/nacos/ "}, Services: []string{"orders"},
			Namespace: "public", Group: "DEFAULT_GROUP", Cluster: "DEFAULT", ClientRefresh: time.Second,
		}, drain.Pod{Name: "orders-0", IP: "10.0.0.1", AppPort: 8080}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	many := strings.Split(strings.Repeat("x,", 17), ",")
	for _, test := range []struct {
		name  string
		spoil func(*Config, *drain.Pod)
		want  string
	}{
		{"no URL", func(c *Config, _ *drain.Pod) { c.URLs = []string{" "} }, "LASTCALL_NACOS_URLS is not set"},
		{"no http", func(c *Config, _ *drain.Pod) { c.URLs[1] = "nacos:8848" }, "entry 2: must be like http://nacos-0:8848/nacos"},
		{"a query", func(c *Config, _ *drain.Pod) { c.URLs[0] += "?accessToken=hunter2" }, "nothing may follow the path"},
		{"a user", func(c *Config, _ *drain.Pod) { c.URLs[0] = "http://nacos:hunter2@nacos-0:8848/nacos" }, "set LASTCALL_NACOS_USERNAME"},
		{"twice", func(c *Config, _ *drain.Pod) { c.URLs[1] = c.URLs[0] + "/" }, "in the list twice"},
		{"too many URLs", func(c *Config, _ *drain.Pod) { c.URLs = many }, "must be at most 16"},
		{"no service", func(c *Config, _ *drain.Pod) { c.Services = nil }, "LASTCALL_NACOS_SERVICE is not set"},
		{"too many services", func(c *Config, _ *drain.Pod) { c.Services = many }, "must be at most 16"},
		{"a group in it", func(c *Config, _ *drain.Pod) { c.Services[0] = "DEFAULT_GROUP@@orders" }, "set the part before @@ in LASTCALL_NACOS_GROUP"},
		{"no address", func(_ *Config, p *drain.Pod) { p.IP = "" }, "LASTCALL_APP_PORT and LASTCALL_POD_IP"},
		{"no port", func(_ *Config, p *drain.Pod) { p.AppPort = 0 }, "LASTCALL_APP_PORT and LASTCALL_POD_IP"},
		{"no namespace", func(c *Config, _ *drain.Pod) { c.Namespace = "" }, "LASTCALL_NACOS_NAMESPACE is empty"},
		{"no group", func(c *Config, _ *drain.Pod) { c.Group = " " }, "LASTCALL_NACOS_GROUP is empty"},
		{"no cluster", func(c *Config, _ *drain.Pod) { c.Cluster = "" }, "LASTCALL_NACOS_CLUSTER is empty"},
		{"half a user", func(c *Config, _ *drain.Pod) { c.Password = "hunter2" }, "LASTCALL_NACOS_USERNAME and LASTCALL_NACOS_PASSWORD"},
		{"negative", func(c *Config, _ *drain.Pod) { c.ClientRefresh = -1 }, "LASTCALL_NACOS_CLIENT_REFRESH"},
		{"no file", func(c *Config, _ *drain.Pod) { c.CAFile = "/not/there" }, "LASTCALL_NACOS_CA_FILE"},
	} {
		cfg, pod := good()
		test.spoil(&cfg, &pod)
		if _, err := New(cfg, pod); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	cfg, pod := good()
	cfg.URLs, cfg.Services, pod.AppPort = nil, nil, 0
	if _, err := New(cfg, pod); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("of three mistakes at once is said: %v", err)
	}
}

// Certificates are verified against the system's authorities and those of
// LASTCALL_NACOS_CA_FILE.
func TestTLS(t *testing.T) {
	t.Parallel()
	h := kind{"", 3, nil, grpc}.start(t)
	h.Register(t)
	s := httptest.NewTLSServer(h.f)
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	h.cfg.URLs = []string{s.URL + "/nacos"}
	if err := h.plugIn(t).Withdraw(t.Context()); err == nil || !strings.Contains(err.Error(), "set LASTCALL_NACOS_CA_FILE") {
		t.Errorf("with a certificate of an unknown authority: %v", err)
	}
	h.cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(h.cfg.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	do(t, "Withdraw with the authority's file", h.plugIn(t).Withdraw)
}
