// Package examples deploys the examples as a new user does, restarts each under load,
// and checks that no request fails.
package examples

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// folder is the folder with the examples.
const folder = "../../examples"

// patience is how long a pod, even with Java, may take to become ready on a busy
// machine.
const patience = 6 * time.Minute

func TestExamples(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil || os.Getenv("KUBECONFIG") == "" {
		t.Fatal("this needs a cluster: run e2e/examples/run")
	}
	for _, example := range []struct {
		name, deployment string
		server           string // the registry's Deployment
		events           []string
		apps             int // containers with the hook
		// orderly reports whether the app may lose no request even without the hook.
		orderly bool
	}{
		{"consul-go", "web", "consul", []string{"Draining", "Withdrawn", "Drained"}, 1, false},
		{"registered-go", "web", "consul", []string{"Draining", "Withdrawn", "Drained"}, 1, false},
		{"eureka-spring", "orders", "eureka", []string{"Draining", "Withdrawn", "Drained"}, 1, false},
		{"dubbo-zookeeper", "greeter", "zookeeper", []string{"Draining", "Withdrawn", "Drained"}, 1, true},
		{"nginx-python", "pages", "", []string{"Draining", "Drained"}, 2, false},
	} {
		t.Run(example.name, func(t *testing.T) {
			n := newNamespace(t, example.name)
			n.kubectl(t, "apply", "-k", n.overlay(t, example.name))
			if example.server != "" {
				n.rolledOut(t, example.server)
			}
			n.rolledOut(t, example.deployment)
			n.kubectl(t, "apply", "-f", filepath.Join(folder, example.name, "load.yaml"))
			before := n.count(t, 30)

			old := n.pods(t, example.deployment)
			n.restart(t, example.deployment)
			after := n.count(t, before.requests+60)
			t.Logf("%d requests, %d failed", after.requests, after.failed)
			if after.failed != 0 {
				t.Errorf("%d of %d requests failed", after.failed, after.requests)
			}
			n.wantEvents(t, old, example.events)

			// The load must be strong enough to prove something: without the hook, requests
			// fail.
			n.removeHooks(t, example.deployment, example.apps)
			before = n.count(t, after.requests+1)
			n.restart(t, example.deployment)
			after = n.count(t, before.requests+60)
			t.Logf("without the hook: %d requests, %d failed", after.requests-before.requests, after.failed-before.failed)
			if after.failed == before.failed && !example.orderly {
				t.Error("no request failed without the hook: the load is too weak")
			}
		})
	}
}

// namespace is a namespace for one example, with the strictest level of Pod Security.
type namespace string

func newNamespace(t *testing.T, example string) namespace {
	t.Helper()
	n := namespace("example-" + example)
	n.kubectl(t, "create", "namespace", string(n))
	t.Cleanup(func() {
		if t.Failed() {
			n.explain(t)
		}
		if os.Getenv("KEEP") == "" {
			// n.kubectl does not work here, because t.Context has ended.
			_, err := run(context.Background(), "delete", "namespace", string(n), "--timeout=3m")
			if err != nil {
				t.Errorf("removing the namespace: %v", err)
			}
		}
	})
	n.kubectl(t, "label", "namespace", string(n), "pod-security.kubernetes.io/enforce=restricted")
	n.eventually(t, "the namespace's service account", time.Minute, func() error {
		_, err := run(t.Context(), "get", "serviceaccount", "default", "--namespace", string(n))
		return err
	})
	return n
}

// overlay returns the folder of a kustomization that moves an example to the namespace.
// It changes nothing else.
func (n namespace) overlay(t *testing.T, example string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(filepath.Join(folder, example))
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Rel(dir, here)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources: [%q]\n", n, path)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (n namespace) rolledOut(t *testing.T, deployment string) {
	t.Helper()
	n.kubectl(t, "rollout", "status", "deployment/"+deployment, "--timeout="+patience.String())
}

// restart replaces all pods. It returns when the old ones are gone, which is some time
// after the end of the rollout.
func (n namespace) restart(t *testing.T, deployment string) {
	t.Helper()
	old := n.pods(t, deployment)
	n.kubectl(t, "rollout", "restart", "deployment/"+deployment)
	n.replaced(t, deployment, old)
}

// removeHooks removes the hook from the first containers.
func (n namespace) removeHooks(t *testing.T, deployment string, containers int) {
	t.Helper()
	var patch []string
	for c := range containers {
		patch = append(patch, fmt.Sprintf(`{"op": "remove", "path": "/spec/template/spec/containers/%d/lifecycle"}`, c))
	}
	old := n.pods(t, deployment)
	n.kubectl(t, "patch", "deployment", deployment, "--type=json", "--patch=["+strings.Join(patch, ",")+"]")
	n.replaced(t, deployment, old)
}

func (n namespace) replaced(t *testing.T, deployment string, old []string) {
	t.Helper()
	n.rolledOut(t, deployment)
	n.kubectl(t, append([]string{"wait", "--for=delete", "--timeout=2m"}, old...)...)
	for _, pod := range n.pods(t, deployment) {
		if slices.Contains(old, pod) {
			t.Errorf("%s was not replaced", pod)
		}
	}
}

// pods returns the names of a Deployment's pods, including terminating ones, in
// kubectl's form pod/NAME.
func (n namespace) pods(t *testing.T, deployment string) []string {
	t.Helper()
	return strings.Fields(n.kubectl(t, "get", "pods", "--selector=app="+deployment, "--output=name"))
}

// count is the last count in the load's log.
type count struct{ requests, failed int }

var told = regexp.MustCompile(`(\d+) requests, (\d+) failed\n`)

// count waits until the load has made that many requests.
func (n namespace) count(t *testing.T, requests int) (c count) {
	t.Helper()
	n.eventually(t, fmt.Sprintf("%d requests", requests), patience, func() error {
		out, err := run(t.Context(), "logs", "pod/load", "--tail=200", "--namespace", string(n))
		if err != nil {
			return err
		}
		lines := told.FindAllStringSubmatch(out, -1)
		if len(lines) == 0 {
			return fmt.Errorf("no count in %q", out)
		}
		last := lines[len(lines)-1]
		c.requests, _ = strconv.Atoi(last[1]) // always digits
		c.failed, _ = strconv.Atoi(last[2])
		if c.requests < requests {
			return fmt.Errorf("the load says %q", last[0])
		}
		return nil
	})
	return c
}

// wantEvents waits until Lastcall has written events with the reasons for each pod.
func (n namespace) wantEvents(t *testing.T, pods, reasons []string) {
	t.Helper()
	n.eventually(t, "events", time.Minute, func() error {
		out, err := run(t.Context(), "get", "events", "--field-selector=reportingComponent=lastcall", "--output=json", "--namespace", string(n))
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Reason, Type   string
				InvolvedObject struct{ Name string }
				Message        string
			}
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, e := range list.Items {
			seen[e.InvolvedObject.Name+" "+e.Reason] = true
			if e.Reason == "DrainExpired" {
				t.Errorf("%s: %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
			}
		}
		for _, pod := range pods {
			for _, reason := range reasons {
				if event := strings.TrimPrefix(pod, "pod/") + " " + reason; !seen[event] {
					return fmt.Errorf("no event %s: %s", event, out)
				}
			}
		}
		return nil
	})
}

// explain logs the state of the namespace for a test that failed.
func (n namespace) explain(t *testing.T) {
	for _, args := range [][]string{
		{"get", "pods", "--output=wide"},
		{"get", "events", "--sort-by=.metadata.creationTimestamp"},
		{"logs", "pod/load", "--tail=20"},
		{"logs", "--selector=app", "--all-containers", "--prefix", "--tail=20", "--ignore-errors"},
	} {
		out, err := run(context.Background(), append(args, "--namespace", string(n))...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// eventually waits until ok returns no error.
func (n namespace) eventually(t *testing.T, what string, limit time.Duration, ok func() error) {
	t.Helper()
	deadline, tick := time.NewTimer(limit), time.NewTicker(500*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s in vain: %v", limit, what, err)
		}
	}
}

func (n namespace) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t.Context(), append(args, "--namespace", string(n))...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, problems.String())
	}
	return string(out), nil
}
