package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var kinds = map[string]sidecarKind{"native": native, "classic": classic}

func TestKustomizeExample(t *testing.T) {
	checkAll(t, decode(t, build(t, deploy+"/kustomize/example")), native)
}

// A kustomization with everything that a component may have to handle.
var full = map[string]string{
	"kustomization.yaml": `
resources: [web.yaml, db.yaml, skipped.yaml, service.yaml]
components: [COMPONENT]
namePrefix: test-
configMapGenerator:
  - name: lastcall
    literals: [LASTCALL_GRACE_PERIOD=90s, LASTCALL_APP_PORT=8080, LASTCALL_REGISTRIES=consul]
secretGenerator:
  - name: lastcall
    literals: [CONSUL_HTTP_TOKEN=secret]
images: [{name: lastcall, newName: registry.example.com/lastcall, digest: sha256:24a0c4b4a4c0eb97a1aabb8e29f18e917d05abfe1b7a7c07857230879ce7d3d3}]
`,
	// It has its own hooks, other containers and its own grace period.
	"web.yaml": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      initContainers:
        - name: migrate
          image: web
          securityContext: &tight {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumes: [{name: data, emptyDir: {}}]
      containers:
        - name: app
          image: web
          volumeMounts: [{name: data, mountPath: /data}]
          ports: [{containerPort: 8080}]
          lifecycle:
            preStop: {exec: {command: [sleep, "30"]}}
            postStart: {exec: {command: [/warm-up]}}
          securityContext: *tight
        - name: proxy
          image: proxy
          securityContext: *tight
`,
	"db.yaml": `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      volumes: [{name: data, emptyDir: {}}]
      containers:
        - name: app
          image: db
          ports: [{containerPort: 8080}]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`,
	"skipped.yaml": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: batch, annotations: {lastcall: skip}}
spec:
  selector: {matchLabels: {app: batch}}
  template:
    metadata: {labels: {app: batch}}
    spec: {containers: [{name: app, image: batch}]}
`,
	"service.yaml": `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`,
}

func TestKustomizeComponents(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			o := decode(t, build(t, kustomization(t, name, full)))
			var config, secret string
			var kept objects
			kept.configMaps = o.configMaps
			for _, object := range o.all {
				switch object := object.(type) {
				case *corev1.ConfigMap:
					config = object.Name
				case *corev1.Secret:
					secret = object.Name
				case *corev1.PodTemplate:
					t.Error("the template that the component copies from is applied")
				case *appsv1.Deployment:
					if object.Name == "test-batch" && len(object.Spec.Template.Spec.Containers)+len(object.Spec.Template.Spec.InitContainers) != 1 {
						t.Error("the skipped workload has a sidecar")
					}
				}
			}
			for _, w := range o.workloads {
				if w.name == "Deployment test-batch" {
					continue
				}
				kept.workloads = append(kept.workloads, w)
				sidecar, _ := split(t, &w.template.Spec, kind)
				if got := w.template.Labels["lastcall"]; got != "sidecar" {
					t.Errorf("%s: its pods' label lastcall is %q", w.name, got)
				}
				for _, c := range append(slices.Clone(w.template.Spec.Containers), *sidecar) {
					if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "lastcall" && m.MountPath == "/lastcall" }) {
						t.Errorf("%s: %s does not mount the shared volume: %v", w.name, c.Name, c.VolumeMounts)
					}
				}
				if volumes := w.template.Spec.Volumes; len(volumes) != 2 || volumes[1].EmptyDir == nil {
					t.Errorf("%s: the volumes are %v", w.name, volumes)
				}
				if got := *w.template.Spec.TerminationGracePeriodSeconds; got != 90 {
					t.Errorf("%s: a grace period of %d s, want 90", w.name, got)
				}
				if from := sidecar.EnvFrom; len(from) != 3 || from[0].ConfigMapRef.Name != config || from[1].SecretRef.Name != secret {
					t.Errorf("%s: the environment is from %v, want ConfigMap %s and Secret %s", w.name, from, config, secret)
				}
				if !strings.HasPrefix(sidecar.Image, "registry.example.com/lastcall@sha256:") {
					t.Errorf("%s: the image is %s", w.name, sidecar.Image)
				}
			}
			if len(kept.workloads) != 2 {
				t.Fatalf("%d workloads, want the Deployment and the StatefulSet", len(kept.workloads))
			}
			checkAll(t, kept, kind)
			web := kept.workloads[1].template.Spec
			if kept.workloads[1].name != "Deployment test-web" {
				web = kept.workloads[0].template.Spec
			}
			if post := web.Containers[0].Lifecycle.PostStart; post == nil || post.Exec == nil {
				t.Error("the app's postStart hook is gone")
			}
			if first := web.Containers[0].Name; first != "app" {
				t.Errorf("the first container is %s: logs and exec would go there by default", first)
			}
			if last := web.InitContainers[len(web.InitContainers)-1].Name; kind == native && last != "lastcall" {
				t.Errorf("the last of initContainers is %s: sidecars that Lastcall may need would end before it", last)
			}
		})
	}
}

// An app with two containers that uses its node's network.
var inHostNetwork = map[string]string{
	"kustomization.yaml": `
resources: [web.yaml]
components: [COMPONENT]
configMapGenerator:
  - name: lastcall
    literals: [LASTCALL_GRACE_PERIOD=90s, LASTCALL_APP_PORT=8080, "LASTCALL_LISTEN=:9099", LASTCALL_TOKEN=web]
`,
	"web.yaml": strings.Replace(full["web.yaml"], "      terminationGracePeriodSeconds: 20\n",
		"      hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet\n", 1),
}

func TestKustomizeHostNetwork(t *testing.T) {
	for name, kind := range kinds {
		for _, workload := range []string{"Deployment", "StatefulSet"} {
			t.Run(name+" "+workload, func(t *testing.T) {
				files := maps.Clone(inHostNetwork)
				files["web.yaml"] = strings.Replace(files["web.yaml"], "kind: Deployment", "kind: "+workload, 1)
				o := decode(t, build(t, kustomization(t, "host-network/"+name, files)))
				checkAll(t, o, kind)
				if pod := o.workloads[0].template.Spec; !pod.HostNetwork {
					t.Error("the pod is not in its node's network")
				}
			})
		}
	}
}

// The examples in the docs work as they are.
func TestHostNetworkDocs(t *testing.T) {
	shown := block(t, "README.md", "host-network/native")
	for name, kind := range kinds {
		files := maps.Clone(inHostNetwork)
		files["kustomization.yaml"] = "resources: [web.yaml]\n" +
			regexp.MustCompile(`- https://\S+/deploy/kustomize/\S+\?ref=\S+`).ReplaceAllString(shown, "- COMPONENT")
		checkAll(t, decode(t, build(t, kustomization(t, "host-network/"+name, files))), kind)
	}
}

func TestKustomizeHostNetworkMistakes(t *testing.T) {
	for name, c := range map[string]struct{ old, want string }{
		"no port":  {`"LASTCALL_LISTEN=:9099", `, "fieldPath `data.LASTCALL_LISTEN` is missing"},
		"no token": {", LASTCALL_TOKEN=web", "fieldPath `data.LASTCALL_TOKEN` is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := maps.Clone(inHostNetwork)
			wrong["kustomization.yaml"] = strings.Replace(wrong["kustomization.yaml"], c.old, "", 1)
			_, err := run(kustomization(t, "host-network/native", wrong))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
		})
	}
}

// Missing or wrong settings make the build fail.
func TestKustomizeMistakes(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"no grace period": {"LASTCALL_GRACE_PERIOD=90s, ", "", "fieldPath `data.LASTCALL_GRACE_PERIOD` is missing"},
		"minutes":         {"PERIOD=90s", "PERIOD=2m", "cannot decode !!str `2m` as a !!int"},
		"no ConfigMap":    {"- name: lastcall\n    literals: [LASTCALL_G", "- name: other\n    literals: [LASTCALL_G", "nothing selected by ConfigMap"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := maps.Clone(full)
			wrong["kustomization.yaml"] = strings.Replace(full["kustomization.yaml"], c.old, c.new, 1)
			_, err := run(kustomization(t, "native", wrong))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
		})
	}
}

// kustomization writes files into a folder, with the component called name, and
// returns the folder.
func kustomization(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	component, err := filepath.Abs(filepath.Join(deploy, "kustomize", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	relative, err := filepath.Rel(dir, component)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range files {
		text = strings.ReplaceAll(text, "COMPONENT", relative)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, dir string) []byte {
	t.Helper()
	text, err := run(dir)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// run runs `kubectl kustomize dir`.
func run(dir string) ([]byte, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}
