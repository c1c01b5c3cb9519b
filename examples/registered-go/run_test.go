// Package registeredgo_test runs the example's app with the real sidecar.
package registeredgo_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"go.yaml.in/yaml/v3"

	"lastcall/drain"
	"lastcall/internal/test/freeport"
	"lastcall/internal/test/servers"
	"lastcall/internal/test/sidecar"
	"lastcall/internal/test/wait"
)

var lastcall sidecar.Program

func TestMain(m *testing.M) { os.Exit(sidecar.Main(m, &lastcall)) }

// Clients find the app when it is ready, but not during a drain. After the app has
// ended, it is deregistered.
func TestTheAppIsRegistered(t *testing.T) {
	agent := servers.StartConsul(t, servers.ConsulOptions{})
	address := freeport.Address(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	s := sidecar.Start(t, &lastcall, settings(t, agent.Address, port)...)
	found := func() (all []string) {
		entries, _, err := agent.Client(t).Health().Service("web", "", true, (&api.QueryOptions{}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, fmt.Sprintf("%s %s %s", net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)), e.Service.ID, e.Service.Meta["version"]))
		}
		return all
	}
	s.Await(t, "an app that is not there not being registered", func(is drain.Status) bool { return is.Registries[0].State == "not registered" })
	if got := found(); len(got) > 0 {
		t.Errorf("%s is found, and does not run", got)
	}
	s.Want(t, http.StatusServiceUnavailable, http.MethodGet, "/readyz")

	app := startApp(t, address)
	s.Eventually(t, "the pod being ready", func() error {
		if a := s.Call(t.Context(), http.MethodGet, "/readyz"); a.Code != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s", a.Code, a.Body)
		}
		return nil
	})
	if got, want := fmt.Sprint(found()), "["+address+" web-web-0 1]"; got != want {
		t.Errorf("clients find %s, want %s", got, want)
	}

	report := sidecar.Wait(t, s.PreStop(t.Context()), wait.Patience).Report(t)
	if report.Outcome != drain.OutcomeDrained || len(found()) > 0 {
		t.Errorf("the drain ended as %s, and clients find %s", report.Outcome, found())
	}
	app.Signal(t, syscall.SIGTERM)
	s.Signal(t, syscall.SIGTERM)
	if code := s.ExitCode(t); code != 0 {
		t.Errorf("lastcall has ended with %d", code)
	}
	services, err := agent.Client(t).Agent().Services()
	if err != nil || len(services) > 0 {
		t.Errorf("after the end Consul holds %v, %v", services, err)
	}
}

func startApp(t *testing.T, address string) *servers.Process {
	t.Helper()
	program := filepath.Join(t.TempDir(), "app")
	build := exec.CommandContext(t.Context(), servers.Need(t, "go"), "build", "-o", program, "./app")
	build.Env = servers.GoEnv()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the app: %v\n%s", err, out)
	}
	return servers.StartProgram(t, []string{"ADDRESS=" + address}, program)
}

// settings returns the sidecar's settings in deployment.yaml, adapted to this
// machine.
func settings(t *testing.T, consul, port string) (env []string) {
	t.Helper()
	text, err := os.ReadFile("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					InitContainers []struct {
						Env []struct{ Name, Value string }
					} `yaml:"initContainers"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &deployment); err != nil {
		t.Fatal(err)
	}
	for _, e := range deployment.Spec.Template.Spec.InitContainers[0].Env {
		switch e.Name {
		case "CONSUL_HTTP_ADDR":
			e.Value = consul
		case "LASTCALL_POD_NAME":
			e.Value = "web-0"
		case "LASTCALL_POD_IP":
			e.Value = "127.0.0.1"
		case "LASTCALL_EVENTS", "LASTCALL_HOST_IP":
			continue // there is no cluster here
		default:
			e.Value = strings.ReplaceAll(e.Value, "8080", port)
		}
		env = append(env, e.Name+"="+e.Value)
	}
	return env
}
