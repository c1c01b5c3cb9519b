package system

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"lastcall/internal/test/freeport"
	"lastcall/internal/test/sidecar"
)

// run runs the program until it ends.
func run(t *testing.T, env []string, args ...string) (code int, out, problems string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := program.Command(t, env, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

func TestCommands(t *testing.T) {
	for _, test := range []struct {
		args          string
		code          int
		out, problems string
	}{
		{"version", 0, "lastcall dev, commit unknown, " + runtime.Version() + " linux/" + runtime.GOARCH + "\n", ""},
		{"help", 0, "usage: lastcall [command]", ""},
		{"--help", 0, "usage: lastcall [command]", ""},
		{"config", 0, "LASTCALL_LISTEN", ""},
		{"drian", 2, "", `there is no command "drian"`},
		{"serve now", 2, "", "serve takes no arguments"},
		{"--listen=:1", 2, "", "usage: lastcall [command]"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, out, problems := run(t, nil, strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(out, test.out) || !strings.Contains(problems, test.problems) {
				t.Errorf("code %d, %q, %q", code, out, problems)
			}
			if (out == "") != (test.out == "") || (problems == "") != (test.problems == "") {
				t.Errorf("to the wrong one of standard output and error: %q, %q", out, problems)
			}
		})
	}
}

// Without arguments, the program does what serve does.
func TestServeIsTheDefault(t *testing.T) {
	t.Parallel()
	code, _, problems := run(t, []string{"LASTCALL_POLL=soon"})
	if code != 2 || !strings.Contains(problems, "LASTCALL_POLL") {
		t.Errorf("code %d, %s", code, problems)
	}
}

// wrong returns an environment full of mistakes, and the expected message for each.
func wrong() (env, says []string) {
	for variable, said := range map[string]string{
		"LASTCALL_LISTEN=8099":                      `LASTCALL_LISTEN="8099": must be HOST:PORT`,
		"LASTCALL_GRACE_PERIOD=0s":                  "LASTCALL_GRACE_PERIOD=0s: must be at least 1s",
		"LASTCALL_RESERVE=-1s":                      "LASTCALL_RESERVE=-1s: must be at least 0s",
		"LASTCALL_THRESHOLD=-3":                     "LASTCALL_THRESHOLD=-3: must be 0 or more",
		"LASTCALL_POLL=1ms":                         "LASTCALL_POLL=1ms: must be at least 10ms",
		"LASTCALL_READY_WHEN_LISTED_WITHIN=1ms":     "LASTCALL_READY_WHEN_LISTED_WITHIN=1ms: must be at least 1s",
		"LASTCALL_READYZ_ON_DRAIN=maybe":            `LASTCALL_READYZ_ON_DRAIN="maybe": must be fail or pass`,
		"LASTCALL_POD_IP=localhost":                 `LASTCALL_POD_IP="localhost": must be an IP address`,
		"LASTCALL_APP_PORT=80, 70000,80":            "LASTCALL_APP_PORT=70000: must be from 1 to 65535",
		"LASTCALL_DRAINING_FILE=draining":           `LASTCALL_DRAINING_FILE="draining": must be an absolute path`,
		"LASTCALL_APP_READY_URL=u:hunter2@app":      "LASTCALL_APP_READY_URL must be an http:// or https:// URL",
		"LASTCALL_LOG_LEVEL=loud":                   `LASTCALL_LOG_LEVEL="loud": must be debug, info, warn or error`,
		"LASTCALL_LOG_FORMAT=xml":                   `LASTCALL_LOG_FORMAT="xml": must be json or text`,
		"LASTCALL_REGISTRIES=eureka,zookeeper":      `LASTCALL_REGISTRIES names "zookeeper": must be any of apisix, consul, dubbo, elasticsearch, etcd, eureka, nacos, patroni, spring, steps, tikv, vault`,
		"LASTCALL_EUREKA_URLS=ftp://u:hunter3@e/":   "LASTCALL_EUREKA_URLS",
		"LASTCALL_COUNTERS=file,file,guess":         "LASTCALL_COUNTERS names file twice",
		"LASTCALL_FILE_PATH=inflight":               `LASTCALL_FILE_PATH="inflight": must be an absolute path`,
		"LASTCALL_SERVICE_NAME=orders":              "LASTCALL_REGISTER=true",
		"LASTCALL_EUREKA_CLIENT_REFRESH=-1s":        "LASTCALL_EUREKA_CLIENT_REFRESH",
		"LASTCALL_EUREKA_STATUS=STARTING":           "LASTCALL_EUREKA_STATUS",
		"LASTCALL_EVENTS=true":                      "LASTCALL_EVENTS=true, and KUBERNETES_SERVICE_HOST",
		"LASTCALL_TOKEN=hunter4":                    "",
		"CONSUL_HTTP_TOKEN=hunter5":                 "",
		"LASTCALL_ENVOY_ADMIN=http://u:hunter6@e:1": "",
	} {
		env = append(env, variable)
		if said != "" {
			says = append(says, said)
		}
	}
	return env, append(says, `LASTCALL_COUNTERS names "guess": must be any of`, "LASTCALL_APP_PORT names 80 twice")
}

func TestBadConfiguration(t *testing.T) {
	env, says := wrong()
	for _, command := range []string{"serve", "config"} {
		t.Run(command, func(t *testing.T) {
			code, out, problems := run(t, env, command)
			if code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			for _, s := range says {
				if !strings.Contains(problems, s) {
					t.Errorf("it does not say %q", s)
				}
			}
			if lines := strings.Count(problems, "\n  "); lines < len(says) {
				t.Errorf("%d lines for %d mistakes", lines, len(says))
			}
			if strings.Contains(out+problems, "hunter") {
				t.Error("it shows a secret")
			}
			if t.Failed() {
				t.Logf("it says:\n%s\n%s", out, problems)
			}
		})
	}
}

// An invalid port is reported once, and not again for the default counter.
func TestWrongPortIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, counters := range []string{"LASTCALL_COUNTERS=", "LASTCALL_COUNTERS=file, tcp"} {
		_, _, problems := run(t, []string{"LASTCALL_APP_PORT=70000", counters}, "config")
		if want := "lastcall: 1 configuration error:\n  LASTCALL_APP_PORT=70000: must be from 1 to 65535\n"; problems != want {
			t.Errorf("with %s it says %q, want %q", counters, problems, want)
		}
	}
}

// Values that cannot be parsed and unknown variables are reported together.
func TestUnreadableConfiguration(t *testing.T) {
	const prefix = "LASTCALL_" // in a constant: the names below are not variables of ours
	const misspelt, unknown = prefix + "GRACE_PEROID", prefix + "NONSENSE"
	code, _, problems := run(t, []string{
		"LASTCALL_QUIET=1", "LASTCALL_THRESHOLD=few", "LASTCALL_APP_PORT=tcp://10.0.0.1:80", "LASTCALL_EUREKA_INSECURE=perhaps",
		misspelt + "=60s", unknown + "=hunter2",
	}, "serve")
	for _, s := range []string{
		`LASTCALL_QUIET="1": must be a duration such as 500ms, 30s or 2m`,
		`LASTCALL_THRESHOLD="few": must be a whole number`,
		"enableServiceLinks: false",
		`LASTCALL_EUREKA_INSECURE="perhaps": must be true or false`,
		misspelt + " is not a variable of lastcall: is LASTCALL_GRACE_PERIOD meant?",
		unknown + " is not a variable of lastcall",
	} {
		if !strings.Contains(problems, s) {
			t.Errorf("it does not say %q", s)
		}
	}
	if code != 2 || strings.Contains(problems, "hunter2") {
		t.Errorf("exit code %d", code)
	}
	if t.Failed() {
		t.Logf("it says:\n%s", problems)
	}
}

func TestConfigMasksSecrets(t *testing.T) {
	code, out, problems := run(t, []string{
		"LASTCALL_TOKEN=hunter2", "CONSUL_HTTP_TOKEN=hunter3", "LASTCALL_GRACE_PERIOD=90s",
		"LASTCALL_EUREKA_URLS=http://user:hunter4@eureka-0:8761/eureka,http://user:hunter5@eureka-1:8761/eureka",
		"LASTCALL_APP_READY_URL=http://user:hunter6@127.0.0.1:8080/ready", "CONSUL_HTTP_AUTH=user:hunter7",
	}, "config")
	if code != 0 || problems != "" {
		t.Fatalf("exit code %d, %s", code, problems)
	}
	if strings.Contains(out, "hunter") {
		t.Errorf("it shows a secret:\n%s", out)
	}
	for _, s := range []string{"LASTCALL_TOKEN", "***", "90s", "eureka-1:8761/eureka", "127.0.0.1:8080/ready", "CONSUL_HTTP_ADDR", "WHAT IT IS FOR"} {
		if !strings.Contains(out, s) {
			t.Errorf("it does not say %q:\n%s", s, out)
		}
	}
}

func TestPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, problems := run(t, []string{"LASTCALL_LISTEN=" + l.Addr().String()}, "serve")
	if code != 1 || !strings.Contains(problems, "cannot listen") || !strings.Contains(problems, l.Addr().String()) {
		t.Errorf("exit code %d, %s", code, problems)
	}
}

// No secret appears in the log, the status, the report or the metrics, whatever the
// other servers do.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	answer := func(w http.ResponseWriter, r *http.Request) {
		switch n := len(r.URL.Path) % 3; n {
		case 0:
			http.Error(w, "no", http.StatusUnauthorized)
		case 1:
			_, _ = fmt.Fprintf(w, "<html>%s</html>", r.URL.Path)
		default:
			panic(http.ErrAbortHandler)
		}
	}
	broken := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(broken.Close)
	at := func(userinfo string) string { return strings.Replace(broken.URL, "http://", "http://"+userinfo+"@", 1) }
	for name, address := range map[string]func(string) string{
		"a server that fails": at,
		"nobody there":        func(userinfo string) string { return "http://" + userinfo + "@" + freeport.Address(t) },
		"no such host":        func(userinfo string) string { return "http://" + userinfo + "@nobody.invalid:1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sidecar.Start(t, &program, append(short(),
				"LASTCALL_LOG_LEVEL=debug",
				"LASTCALL_TOKEN=hunter2",
				"LASTCALL_POD_IP=127.0.0.1",
				"LASTCALL_APP_PORT=1",
				"LASTCALL_APP_READY_URL="+address("user:hunter3")+"/ready?key=hunter4",
				"LASTCALL_REGISTRIES=eureka,consul",
				"LASTCALL_EUREKA_URLS="+address("user:hunter5")+"/eureka",
				"LASTCALL_EUREKA_APP=web",
				"CONSUL_HTTP_ADDR="+address("x:y")[strings.Index(address("x:y"), "@")+1:],
				"CONSUL_HTTP_TOKEN=hunter6",
				"CONSUL_HTTP_AUTH=user:hunter7",
				"LASTCALL_COUNTERS=envoy,nginx,haproxy,prometheus",
				"LASTCALL_ENVOY_ADMIN="+address("user:hunter8"),
				"LASTCALL_NGINX_STATUS="+address("user:hunter9")+"/status?key=hunter10",
				"LASTCALL_HAPROXY_STATS="+address("user:hunter11")+"/;csv",
				"LASTCALL_PROMETHEUS_URL="+address("user:hunter12")+"/metrics?key=hunter13",
				"LASTCALL_PROMETHEUS_METRIC=in_flight",
			)...)
			var said strings.Builder
			ask := func(method, path string, headers ...string) {
				a := s.Call(within(t), method, path, headers...)
				fmt.Fprintf(&said, "%s %s: %d %s\n", method, path, a.Code, a.Body)
			}
			look := func() {
				for _, path := range []string{"/readyz", "/status", "/metrics"} {
					ask(http.MethodGet, path)
				}
			}
			look()
			ask(http.MethodGet, "/prestop", "Authorization", "Bearer hunter14")
			hook := make(chan struct{})
			go func() {
				defer close(hook)
				ask(http.MethodGet, "/prestop", "Authorization", "Bearer hunter2")
			}()
			<-hook
			look()
			ask(http.MethodDelete, "/drain", "Authorization", "Bearer hunter2")
			look()
			s.Signal(t, syscall.SIGTERM)
			code := 1 // the counters are unreadable
			if name == "nobody there" {
				code = 0 // the programs that they read are gone for good
			}
			exits(t, s, code)
			if !strings.Contains(said.String(), "504") || !strings.Contains(s.Log(), "call failed") {
				t.Errorf("the calls were not made as they should:\n%s", said.String())
			}
			for from, text := range map[string]string{"an answer": said.String(), "the log": s.Log()} {
				for line := range strings.Lines(text) {
					if strings.Contains(line, "hunter") {
						t.Errorf("%s shows a secret: %s", from, line)
					}
				}
			}
		})
	}
}
