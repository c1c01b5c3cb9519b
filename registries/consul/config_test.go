package consul

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kelseyhightower/envconfig"

	"lastcall/drain"
)

func TestMistakesAreToldAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	empty, text := filepath.Join(dir, "empty"), filepath.Join(dir, "text")
	check(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	check(t, os.WriteFile(text, []byte("two words"), 0o600))
	missing := filepath.Join(dir, "missing")
	pod := drain.Pod{IP: "10.1.2.3", AppPort: 8080}
	for _, test := range []struct {
		name   string
		config Config
		pod    drain.Pod
		says   []string // the variables in the error, one mistake per line
	}{
		{"nothing set", Config{}, pod, nil},
		{"id alone", Config{ServiceID: "web-1"}, drain.Pod{}, nil},
		{"no way to find it", Config{}, drain.Pod{}, []string{"LASTCALL_APP_PORT"}},
		{"no port", Config{}, drain.Pod{IP: "10.1.2.3"}, []string{"LASTCALL_APP_PORT"}},
		{"no address", Config{}, drain.Pod{AppPort: 8080}, []string{"LASTCALL_POD_IP"}},
		{"user in the address", Config{Address: "http://kim:" + secret + "@consul:8500"}, pod, []string{"CONSUL_HTTP_AUTH"}},
		{"user in an address without scheme", Config{Address: "kim:" + secret + "@consul:8500"}, pod, []string{"CONSUL_HTTP_AUTH"}},
		{"another scheme", Config{Address: "tcp://consul:8500"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"a port that is none", Config{Address: "consul:http"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"a port too high", Config{Address: "consul:85000"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"no port after the colon", Config{Address: "consul:"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"no host", Config{Address: "http://"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"a query", Config{Address: "http://consul:8500?dc=x"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"a socket's path that is relative", Config{Address: "unix://consul.sock"}, pod, []string{"CONSUL_HTTP_ADDR"}},
		{"a token with a line break", Config{Token: secret + "\nX: y"}, pod, []string{"CONSUL_HTTP_TOKEN"}},
		{"all together", Config{
			ClientRefresh: -time.Second, SSL: "si", SSLVerify: "maybe", Address: ":::", TokenFile: missing,
			ClientCert: text, CACert: text, CAPath: missing,
		}, drain.Pod{}, []string{
			"LASTCALL_CONSUL_CLIENT_REFRESH", "LASTCALL_CONSUL_SERVICE_ID", "CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY",
			"CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_CLIENT_KEY", "CONSUL_CACERT", "CONSUL_CAPATH",
		}},
		{"an empty token file", Config{TokenFile: empty}, pod, []string{"CONSUL_HTTP_TOKEN_FILE"}},
		{"a token file with more", Config{TokenFile: text}, pod, []string{"CONSUL_HTTP_TOKEN_FILE"}},
		{"a token file that is a folder", Config{TokenFile: dir}, pod, []string{"CONSUL_HTTP_TOKEN_FILE"}},
		{"a certificate that is none", Config{ClientCert: text, ClientKey: text}, pod, []string{"CONSUL_CLIENT_CERT"}},
		{"a server name with a bad port", Config{TLSServerName: "consul:1:2"}, pod, []string{"CONSUL_TLS_SERVER_NAME"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := New(test.config, test.pod)
			if test.says == nil {
				if err != nil || r == nil {
					t.Fatalf("New: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("New: no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.says) {
				t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(test.says), err)
			}
			for _, name := range test.says {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("%s is not named:\n%v", name, err)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for _, test := range []struct {
		raw, ssl, hostIP, want string
	}{
		{"", "", "", "http://localhost:8500"},
		{"", "", "10.0.0.5", "http://10.0.0.5:8500"},
		{"", "true", "10.0.0.5", "https://10.0.0.5:8501"},
		{"", "", "fd00::5", "http://[fd00::5]:8500"},
		{"10.0.0.9:8500", "", "10.0.0.5", "http://10.0.0.9:8500"},
		{"10.0.0.9:8501", "1", "", "https://10.0.0.9:8501"},
		{"localhost:8500", "", "10.0.0.5", "http://localhost:8500"},
		{"consul", "", "", "http://consul"},
		{"[fd00::9]:8500", "", "", "http://[fd00::9]:8500"},
		{"http://consul:8500", "true", "", "https://consul:8500"}, // TLS that was configured is never dropped
		{"https://consul:8501", "", "", "https://consul:8501"},
		{"https://example.com/consul/", "", "", "https://example.com/consul"},
		{"unix:///run/consul.sock", "", "", "unix:///run/consul.sock"},
	} {
		r, err := New(Config{ServiceID: "web-1", Address: test.raw, SSL: test.ssl}, drain.Pod{HostIP: test.hostIP})
		if err != nil {
			t.Errorf("CONSUL_HTTP_ADDR=%q: %v", test.raw, err)
		} else if r.at != test.want {
			t.Errorf("CONSUL_HTTP_ADDR=%q CONSUL_HTTP_SSL=%q LASTCALL_HOST_IP=%q: %s, want %s", test.raw, test.ssl, test.hostIP, r.at, test.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LASTCALL_CONSUL_SERVICE_ID", "web-1")
	t.Setenv("CONSUL_HTTP_ADDR", "http://10.0.0.5:8500")
	t.Setenv("CONSUL_HTTP_SSL", "")
	t.Setenv("CONSUL_NAMESPACE", "team")
	var config Config
	check(t, envconfig.Process("", &config))
	want := Config{ServiceID: "web-1", ClientRefresh: time.Second, RegisterIn: "agent", Address: "http://10.0.0.5:8500", Namespace: "team"}
	if config != want {
		t.Errorf("the environment was read as %+v, want %+v", config, want)
	}
}
