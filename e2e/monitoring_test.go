package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The real Prometheus Operator creates a configuration from deploy/monitoring. With it, a
// real Prometheus scrapes each pod exactly once and loads the alerts.
func TestMonitoring(t *testing.T) {
	s := start(t)
	s.installOperatorKinds()
	s.apply(s.kubectl(nil, "kustomize", deployments+"/monitoring"))
	s.apply([]byte(`{
		"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": "test"},
		"spec": {"replicas": 0, "podMonitorSelector": {}, "ruleSelector": {}, "serviceAccountName": "default"}
	}`))
	s.startProgram("prometheus-operator", "--namespaces="+s.namespace, "--web.listen-address=127.0.0.1:0", "--log-level=warn")
	s.apply(s.kustomized("Deployment", "native"))
	web := app{name: "web", replicas: 2}
	s.ready(web)

	address := freeAddress(t)
	s.startProgram("prometheus", "--config.file="+s.prometheusConfig(), "--storage.tsdb.path="+t.TempDir(),
		"--web.listen-address="+address, "--log.level=warn")
	s.eventually("Prometheus knows the pods", func(ctx context.Context) (bool, error) {
		var found struct {
			Data struct {
				ActiveTargets []struct {
					Labels            map[string]string
					Health, LastError string
				}
			}
		}
		if err := getJSON(ctx, "http://"+address+"/api/v1/targets?state=active", &found); err != nil {
			return false, err
		}
		times := map[string]int{}
		for _, target := range found.Data.ActiveTargets {
			if target.Labels["namespace"] == s.namespace && target.Labels["container"] == sidecarName && target.Health == "up" {
				times[target.Labels["pod"]]++
			}
		}
		for _, pod := range s.podsOf(web) {
			if times[pod.Name] != 1 {
				return false, fmt.Errorf("the targets are %v", found.Data.ActiveTargets)
			}
		}
		return len(times) == 2, fmt.Errorf("the targets are %v", found.Data.ActiveTargets)
	})
	var read struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	query := url.QueryEscape(fmt.Sprintf(`lastcall_drain_budget_seconds{namespace=%q}`, s.namespace))
	s.must("asking Prometheus for what it has read", getJSON(s.ctx, "http://"+address+"/api/v1/query?query="+query, &read))
	if len(read.Data.Result) != 2 {
		t.Errorf("it has read %v, want the budget of each pod", read.Data.Result)
	}
	var rules struct {
		Data struct {
			Groups []struct{ Rules []struct{ Name string } }
		}
	}
	s.must("asking Prometheus for its rules", getJSON(s.ctx, "http://"+address+"/api/v1/rules", &rules))
	// One group is for the sidecar, the other for the cluster side.
	if groups := rules.Data.Groups; len(groups) != 2 || len(groups[0].Rules) < 5 || len(groups[1].Rules) < 5 {
		t.Errorf("the rules are %v", groups)
	}
}

// installOperatorKinds creates the operator's CustomResourceDefinitions from its module,
// unless they exist.
func (s *scenario) installOperatorKinds() {
	s.Helper()
	const module = "github.com/prometheus-operator/prometheus-operator"
	list := exec.CommandContext(s.ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	list.Dir = "../internal/tools/prometheus-operator"
	list.Env = append(os.Environ(), "GOWORK=off", "GOPROXY=off")
	dir, err := list.Output()
	s.must("looking for "+module+", which internal/tools/install-deploy fetches", err)
	for _, kind := range []string{"podmonitors", "prometheuses", "prometheusrules", "probes", "scrapeconfigs", "servicemonitors"} {
		name := kind + ".monitoring.coreos.com"
		if exec.CommandContext(s.ctx, "kubectl", "get", "crd", name).Run() == nil {
			continue // installed by somebody else
		}
		s.kubectl(nil, "create", "-f", filepath.Join(strings.TrimSpace(string(dir)), "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml"))
		s.Cleanup(func() {
			if out, err := exec.CommandContext(context.WithoutCancel(s.ctx), "kubectl", "delete", "crd", name, "--wait=false").CombinedOutput(); err != nil {
				s.Logf("deleting %s: %v\n%s", name, err, out)
			}
		})
		// `kubectl wait` would fail on a new kind that has no status yet.
		s.eventually(name+" is served", func(ctx context.Context) (bool, error) {
			established := `jsonpath={.status.conditions[?(@.type=="Established")].status}`
			status, err := exec.CommandContext(ctx, "kubectl", "get", "crd", name, "-o", established).Output()
			return string(status) == "True", err
		})
	}
}

// prometheusConfig waits for the configuration that the operator creates. It adapts the
// configuration to a Prometheus that runs outside of the cluster, and writes it to file.
func (s *scenario) prometheusConfig() (file string) {
	s.Helper()
	dir, rulesDir := s.TempDir(), s.TempDir()
	file = filepath.Join(dir, "prometheus.yaml")
	s.eventually("the operator has made the configuration", func(ctx context.Context) (bool, error) {
		secret, err := s.client.CoreV1().Secrets(s.namespace).Get(ctx, "prometheus-test", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		unzipped, err := gzip.NewReader(bytes.NewReader(secret.Data["prometheus.yaml.gz"]))
		if err != nil {
			return false, err
		}
		text, err := io.ReadAll(unzipped)
		if err != nil || !strings.Contains(string(text), "podMonitor/"+s.namespace+"/lastcall/0") {
			return false, fmt.Errorf("it has no job for the PodMonitor (%w)", err)
		}
		config := strings.NewReplacer(
			"$(POD_NAME)", "test", "$(SHARD)", "0",
			"- role: pod\n", "- role: pod\n    kubeconfig_file: "+os.Getenv("KUBECONFIG")+"\n",
			"/etc/prometheus/rules/prometheus-test-rulefiles-0", rulesDir,
		).Replace(string(text))
		return true, os.WriteFile(file, []byte(config), 0o600)
	})
	rules, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(s.ctx, "prometheus-test-rulefiles-0", metav1.GetOptions{})
	s.must("looking for the rules that the operator has made", err)
	for name, text := range rules.Data {
		s.must("writing the rules", os.WriteFile(filepath.Join(rulesDir, name), []byte(text), 0o600))
	}
	return file
}

// startProgram starts a program that internal/tools/install-deploy has built. The process
// ends with the test.
func (s *scenario) startProgram(name string, args ...string) {
	s.Helper()
	cache, err := os.UserCacheDir()
	s.must("looking for "+name, err)
	cmd := exec.CommandContext(s.ctx, filepath.Join(cache, "lastcall", "bin", name), args...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	s.must("starting "+name+", which internal/tools/install-deploy builds", cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill() // the process may have ended
		_ = cmd.Wait()         // the error says that it was killed
		if s.Failed() {
			s.Logf("the log of %s ends with:\n%s", name, lastLines(log.String(), 25))
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // only the port number is needed
	return listener.Addr().String()
}

func getJSON(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(into)
}
