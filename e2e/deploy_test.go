package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deployments is the path of the project's folder deploy/.
const deployments = "../deploy"

// A rolling restart under load has no failed request, for each way in deploy/ to add
// Lastcall to an app.
func TestDeploy(t *testing.T) {
	t.Parallel()
	// The plain manifests have no shared volume. So the app cannot know that it must
	// close kept connections.
	fresh := []string{"-keep-alive", "0"}
	for _, c := range []struct {
		name    string
		variant variant
		build   func(*scenario) []byte
		load    []string
		events  bool
	}{
		{"kustomize", native, func(s *scenario) []byte { return s.kustomized("Deployment", "native", "events", "network-policy") }, nil, true},
		{"kustomize", classic, func(s *scenario) []byte { return s.kustomized("Deployment", "classic", "events") }, nil, true},
		{"Helm", native, func(s *scenario) []byte { return s.helm("native") }, nil, false},
		{"Helm", classic, func(s *scenario) []byte { return s.helm("classic") }, nil, false},
		{"plain manifests, fresh connections only", native, func(s *scenario) []byte { return s.overlay(s.read("deployment-native.yaml"), "") }, fresh, false},
		{"plain manifests, fresh connections only", classic, func(s *scenario) []byte { return s.overlay(s.read("deployment.yaml"), "") }, fresh, false},
	} {
		t.Run(c.name+" "+string(c.variant), func(t *testing.T) {
			s := start(t)
			web := app{name: "web", replicas: 2, variant: c.variant}
			address := s.service(web.name) // created first, so that kube-proxy knows it before there are pods
			s.apply(c.build(s))
			s.ready(web)
			clients := s.load(address, c.load...)
			s.restart(web)
			clients.more(40)
			counts := clients.stop()
			results.add("rolling restart of 2 replicas, made by deploy/: "+c.name, c.variant, counts, s.longest(web))
			s.noneFailed(counts)
			s.wentWell(web)

			gone := s.pods.terminations(web.name)
			if len(gone) != 2 {
				t.Errorf("%d pods are gone, want 2", len(gone))
			}
			for _, end := range gone {
				if c.events {
					s.told(end.pod, "Draining", "Drained")
				}
			}
		})
	}
}

// The API server accepts the app manifests in deploy/ and knows all their fields.
func TestDeployIsAccepted(t *testing.T) {
	s := start(t)
	for name, text := range map[string][]byte{
		"deployment.yaml":        s.read("deployment.yaml"),
		"deployment-native.yaml": s.read("deployment-native.yaml"),
		"kustomize/example":      s.kubectl(nil, "kustomize", deployments+"/kustomize/example"),
		"StatefulSet, native":    s.kustomized("StatefulSet", "native", "events", "network-policy"),
		"StatefulSet, classic":   s.kustomized("StatefulSet", "classic"),
	} {
		s.kubectl(text, "apply", "--dry-run=server", "--validate=strict", "--namespace", s.namespace, "-f", "-")
		s.Logf("%s: accepted", name)
	}
}

// kustomized returns the example's app as a Deployment or a StatefulSet, with some of
// the components.
func (s *scenario) kustomized(kind string, components ...string) []byte {
	s.Helper()
	workload := bytes.ReplaceAll(s.read("kustomize/example/deployment.yaml"), []byte("kind: Deployment"), []byte("kind: "+kind))
	var text strings.Builder
	fmt.Fprint(&text, `
configMapGenerator:
  - name: lastcall
    literals:
      - LASTCALL_GRACE_PERIOD=60s
      - LASTCALL_APP_PORT=8080
      - LASTCALL_EVENTS=true
      - LASTCALL_DRAINING_FILE=`+drainingFile+`
components:
`)
	for _, c := range components {
		fmt.Fprintf(&text, "  - COMPONENTS/%s\n", c)
	}
	return s.overlay(workload, text.String())
}

// helm returns the rendered example chart.
func (s *scenario) helm(mode string) []byte {
	s.Helper()
	return s.overlay(s.chart("web", "lastcall.mode="+mode), "")
}

// chart renders the example chart as a release with that name and those values.
func (s *scenario) chart(name string, values ...string) []byte {
	s.Helper()
	charts := filepath.Join(s.TempDir(), "helm")
	s.must("copying the charts", os.CopyFS(charts, os.DirFS(deployments+"/helm")))
	cache, err := os.UserCacheDir()
	s.must("looking for helm, which internal/tools/install-deploy builds", err)
	helm := filepath.Join(cache, "lastcall", "bin", "helm")
	s.run(nil, helm, "dependency", "update", charts+"/example")
	return s.run(nil, helm, "template", name, charts+"/example", "--set", strings.Join(values, ","),
		"--set", "image=web,lastcall.image=lastcall,lastcall.env.LASTCALL_DRAINING_FILE="+drainingFile)
}

// overlay adapts a manifest to the scenario: its namespace, images, and the app's
// arguments. more is added to the kustomization.
func (s *scenario) overlay(manifest []byte, more string) []byte {
	s.Helper()
	dir := s.TempDir()
	components, err := filepath.Abs(deployments + "/kustomize")
	if err == nil {
		components, err = filepath.Rel(dir, components)
	}
	s.must("looking for the components", err)
	text := fmt.Sprintf(`
namespace: %s
resources: [app.yaml]
images:
  - %s
  - %s
  - %s
  - %s
patches:
  - target: {group: apps}
    patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["serve", "-draining-file", "%s", "-linger", "3s"]}]'
`, s.namespace, kustomizeImage("lastcall", lastcallImage()), kustomizeImage("registry.example.com/lastcall", lastcallImage()),
		kustomizeImage("web", appImage()), kustomizeImage("registry.example.com/web", appImage()), drainingFile)
	text += strings.ReplaceAll(more, "COMPONENTS", components)
	s.must("writing a kustomization", cmp.Or(
		os.WriteFile(filepath.Join(dir, "app.yaml"), manifest, 0o600),
		os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600),
	))
	return s.kubectl(nil, "kustomize", dir)
}

// kustomizeImage returns the entry by which kustomize replaces an image by another.
func kustomizeImage(name, is string) string {
	colon := strings.LastIndex(is, ":")
	return fmt.Sprintf("{name: %s, newName: %q, newTag: %q}", name, is[:colon], is[colon+1:])
}

// apply creates the objects in a manifest.
func (s *scenario) apply(manifest []byte) {
	s.Helper()
	s.kubectl(manifest, "apply", "--validate=strict", "--namespace", s.namespace, "-f", "-")
}

// read returns a file of deploy/.
func (s *scenario) read(name string) []byte {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(deployments, name))
	s.must("reading deploy/", err)
	return text
}

func (s *scenario) kubectl(stdin []byte, args ...string) []byte {
	s.Helper()
	return s.run(stdin, "kubectl", args...)
}

// run runs a command and returns its standard output.
func (s *scenario) run(stdin []byte, command string, args ...string) []byte {
	s.Helper()
	cmd := exec.CommandContext(s.ctx, command, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("%s %s: %v\n%s%s\nof:\n%s", command, strings.Join(args, " "), err, out, problems.Bytes(), stdin)
	}
	return out
}
